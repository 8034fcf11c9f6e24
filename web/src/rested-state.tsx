// The state of a request that follows its input: its progress, why it has no answer, and its buttons.
import type { JSX } from "preact";
import { duration } from "./format.js";
import { Badge, Failure, percentText } from "./parts.js";
import { now } from "./polled.js";
import type { RestedRequest } from "./rested.js";

interface RestedStateProps {
  readonly of: RestedRequest<unknown>;
  /** What the server does, in words. */
  readonly what: string;
  /** The text of the button that sends the request again. */
  readonly again: string;
}

export function RestedState({ of, what, again }: RestedStateProps): JSX.Element {
  const { began, percent, error, stopped } = of.value.value;
  return (
    <>
      {began !== null && <Working what={what} began={began} percent={percent} onStop={() => of.stop()} />}
      {error && <Failure error={error} />}
      {(error || stopped) && (
        <p class="actions">
          {stopped && <Badge tone="quiet" text="cancelled" />}
          <button type="button" onClick={() => of.again()}>
            {again}
          </button>
        </p>
      )}
    </>
  );
}

/** Work of the server that can be cancelled. Until it tells how far it is, only the time is shown. */
function Working({ what, began, percent, onStop }: { what: string; began: number; percent: number | null; onStop: () => void }): JSX.Element {
  const seconds = Math.max(0, Math.round((now.value - began) / 1000));
  return (
    <div class="actions">
      <progress {...(percent === null ? {} : { max: 100, value: percent })} aria-label={what} />
      <span role="status">{what} …</span>
      <span class="soft number">
        {percent !== null && `${percentText(percent)}, `}
        {duration(Math.max(1, seconds))}
      </span>
      <button type="button" onClick={onStop}>
        Cancel
      </button>
    </div>
  );
}
