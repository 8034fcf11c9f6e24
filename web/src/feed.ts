// The connection to the feed, which all live tables share.
import { signal } from "@preact/signals";
import { type Client, connect } from "../../clients/ts/src/index.js";

/** What happens to the connection. */
export const connection = signal<{ state: "idle" | "open" | "lost"; since: number }>({ state: "idle", since: Date.now() });

export const client: Client = connect("/v1/feed", {
  // A server that was restarted should be shown again soon.
  backoffMaxMs: 5000,
  onDiagnostic: ({ what }) => {
    if (what === "open") connection.value = { state: "open", since: Date.now() };
    else if (what === "lost" && connection.value.state !== "lost") connection.value = { state: "lost", since: Date.now() };
  },
});
