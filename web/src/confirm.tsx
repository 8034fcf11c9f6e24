// Dialogs that ask before an action that cannot be undone, or that affects other users.
import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { Dialog, Failure, say } from "./parts.js";
import { type Problem, problem } from "./problem.js";
import { overview } from "./server.js";

/** An action to confirm, and what it affects. */
export interface Action {
  readonly title: string;
  readonly does: string;
  readonly touches: readonly string[];
  /** The text to type, for what cannot be undone. */
  readonly type?: string;
  readonly run: () => Promise<unknown>;
  /** Where to go afterwards. */
  readonly then?: () => void;
}

/** The dialog of an action. It stays open with the reason if the server refuses. */
function Confirm({ action, onClose }: { action: Action; onClose: () => void }): JSX.Element {
  const typed = useSignal("");
  const failed = useSignal<Problem | null>(null);
  const running = useSignal(false);
  const run = async (): Promise<void> => {
    running.value = true;
    failed.value = null;
    try {
      await action.run();
      say(`Done: ${action.title}`);
      onClose();
      action.then?.();
    } catch (error) {
      failed.value = problem(error);
    }
    running.value = false;
    void overview.refresh();
  };
  return (
    <Dialog title={action.title} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void run();
        }}
      >
        <p>{action.does}</p>
        <ul>
          {action.touches.map((text) => (
            <li key={text}>{text}</li>
          ))}
        </ul>
        {action.type !== undefined && (
          <label>
            Type <strong>{action.type}</strong> to confirm{" "}
            <input value={typed.value} autocomplete="off" spellcheck={false} onInput={({ currentTarget }) => (typed.value = currentTarget.value)} />
          </label>
        )}
        {failed.value && <Failure error={failed.value} />}
        <p class="actions">
          <button type="submit" class={action.type === undefined ? "primary" : "danger"} disabled={running.value || (action.type !== undefined && typed.value !== action.type)}>
            {action.title}
          </button>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
        </p>
      </form>
    </Dialog>
  );
}

/** A button that opens the dialog of an action. */
export function ActionButton({ action, tone = "", children }: { action: Action; tone?: string; children?: ComponentChildren }): JSX.Element {
  const open = useSignal(false);
  return (
    <>
      <button type="button" class={tone} onClick={() => (open.value = true)}>
        {children ?? action.title}
      </button>
      {open.value && <Confirm action={action} onClose={() => (open.value = false)} />}
    </>
  );
}
