// A server over real sockets whose messages a test decides.
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import { PATIENCE_MS } from "./patience.js";

type Frame = { [member: string]: unknown };

const DATA = ["snap", "delta", "tick"];

/** One connection of a client. It keeps the rules of acknowledgements. */
export class Session {
  readonly socket: WebSocket;
  #frames: Frame[] = [];
  #waiting: (() => void)[] = [];
  #sent = 0;
  /** How many data frames the client has acknowledged. */
  acked = 0;
  #window = Number.POSITIVE_INFINITY;
  #error: Error | undefined;

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("message", (data) => this.#take(JSON.parse(String(data))));
  }

  #take(frame: Frame): void {
    if (frame.t !== "ack") this.#frames.push(frame);
    else if ((frame.n as number) > this.#sent || (frame.n as number) <= this.acked)
      this.#error = new Error(`an acknowledgement of ${frame.n} of ${this.#sent} data frames`);
    else this.acked = frame.n as number;
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #until<T>(what: string, ready: () => T | undefined): Promise<T> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      if (this.#error) throw this.#error;
      const value = ready();
      if (value !== undefined) return value;
      if (Date.now() > deadline) throw new Error(`the client sends no ${what}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1_000);
        this.#waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** The client's next message that is no acknowledgement. */
  receive(): Promise<Frame> {
    return this.#until("message", () => this.#frames.shift());
  }

  async send(frame: Frame, text = JSON.stringify(frame)): Promise<void> {
    if (frame.t === "welcome") this.#window = (frame.limits as { window: number }).window;
    if (DATA.includes(frame.t as string)) {
      await this.#until("acknowledgement", () => (this.#sent - this.acked < this.#window ? true : undefined));
      this.#sent += 1;
    }
    this.socket.send(text);
  }

  cut(): void {
    this.socket.terminate();
  }
}

/** A server on loopback. */
export class Scripted {
  readonly url: string;
  #server: WebSocketServer;
  #sessions: Session[] = [];
  #waiting: (() => void)[] = [];
  /** How many connections there were. */
  connections = 0;

  private constructor(server: WebSocketServer) {
    this.#server = server;
    this.url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/v1/feed`;
    server.on("connection", (socket) => {
      this.connections += 1;
      this.#sessions.push(new Session(socket));
      this.#waiting.shift()?.();
    });
  }

  static async start(): Promise<Scripted> {
    const handleProtocols = (wanted: Set<string>): string | false => wanted.has("lantern.v1.json") && "lantern.v1.json";
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols });
    await once(server, "listening");
    return new Scripted(server);
  }

  /** The next connection of a client. */
  async session(): Promise<Session> {
    while (this.#sessions.length === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return this.#sessions.shift()!;
  }

  /** A connection that has received `welcome`. */
  async welcomed(): Promise<Session> {
    const session = await this.session();
    await session.receive();
    const limits = { subs: 64, frame: 262_144, window: 32 };
    await session.send({ t: "welcome", heartbeat_ms: 15_000, limits });
    return session;
  }

  stop(): void {
    for (const socket of this.#server.clients) socket.terminate();
    this.#server.close();
  }
}
