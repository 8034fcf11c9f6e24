// The connection to the feed, which all live tables share.
import { signal } from "@preact/signals";
import { type Client, connect } from "../../clients/ts/src/index.js";

/** Whether the connection is lost, and the client tries to connect again. */
export const feedLost = signal(false);

export const client: Client = connect("/v1/feed", {
  // A server that was restarted should be shown again soon.
  backoffMaxMs: 5000,
  onDiagnostic: ({ what }) => {
    if (what === "open" || what === "lost") feedLost.value = what === "lost";
  },
});
