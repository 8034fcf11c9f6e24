// A TCP proxy that cuts connections at random bytes, and passes bytes slowly.
import { once } from "node:events";
import net, { type AddressInfo } from "node:net";

/** Random numbers from a seed: mulberry32. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export interface Weather {
  /** The number of bytes after which a connection to the client is cut. */
  cutAfter(): number;
  /** How long the proxy waits before it passes a piece on, in milliseconds. */
  delay(): number;
}

export class Proxy {
  cuts = 0;
  readonly port: number;
  #server: net.Server;
  #sockets = new Set<net.Socket>();

  private constructor(server: net.Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
  }

  /** A proxy to a port of loopback. */
  static async start(target: number, weather: Weather): Promise<Proxy> {
    const server = net.createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const proxy = new Proxy(server);
    server.on("connection", (client) => proxy.#pass(client, net.connect(target, "127.0.0.1"), weather));
    return proxy;
  }

  #pass(client: net.Socket, server: net.Socket, { cutAfter, delay }: Weather): void {
    let left = cutAfter();
    const end = (): void => {
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        end();
      });
    }
    client.pipe(server);
    server.on("data", (bytes) => {
      server.pause();
      const pass = (): void => {
        if (client.destroyed) return;
        client.write(bytes.subarray(0, left));
        left -= bytes.length;
        if (left > 0) {
          server.resume();
        } else {
          this.cuts += 1;
          client.end(end);
        }
      };
      const ms = delay();
      if (ms > 0) setTimeout(pass, ms);
      else pass();
    });
  }

  /** Cuts every connection. */
  cutAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  stop(): void {
    this.cutAll();
    this.#server.close();
  }
}
