// A board: its panes, its variables, and how both are changed.
import { effect, type Signal, signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLocation, useRoute } from "preact-iso";
import { useEffect } from "preact/hooks";
import { parse, stringify } from "../../../clients/ts/src/json.js";
import type { QueryPage } from "../api-types.js";
import { type Board, COLUMNS, HEIGHT_MAX, loadBoard, moved, NEW_PANE, type Pane, parameterOf, sized, type Stored, storeBoard, type Variable, valuesOf } from "../board.js";
import { PaneEditor, VariableEditor } from "../board-editors.js";
import { shown } from "../format.js";
import { PaneView, titleOf } from "../pane.js";
import { copy, Empty, Failure, FreshnessMark, Missing, PolledMark, say } from "../parts.js";
import { type Polled, useFreshness, usePoll } from "../polled.js";
import { type Problem, path, problem, read } from "../problem.js";
import type { Group } from "../rollup.js";
import { overview, splitName, STALE_MS, upgraded } from "../server.js";

/** How often the document is requested: another user may change it. */
const BOARD_MS = 10_000;
/** How often the values of a variable are requested. */
const VALUES_MS = 30_000;
/** How many values of a variable are offered. */
const VALUES_MAX = 500;

/** A board that is being changed, with the tag of the document it began with. */
interface Draft extends Stored {
  readonly name: string;
}
const STORED = "board";
const draft = signal<Draft | null>(kept());
effect(() => {
  if (draft.value === null) sessionStorage.removeItem(STORED);
  else sessionStorage.setItem(STORED, stringify(draft.value));
});

/** The draft from before the page was loaded again. */
function kept(): Draft | null {
  try {
    return parse(sessionStorage.getItem(STORED) ?? "null") as Draft | null;
  } catch {
    return null;
  }
}

export default function BoardScreen(): JSX.Element {
  const { params } = useRoute();
  const name = params.name ?? "";
  return <BoardOf key={name} name={name} />;
}

function BoardOf({ name }: { name: string }): JSX.Element {
  const { query: search } = useLocation();
  const poll = usePoll(`board ${name}`, (stop, before: Stored | null) => loadBoard(name, stop, before), BOARD_MS);
  const { value } = poll.value;
  const kiosk = search.kiosk !== undefined;
  const editing = search.edit !== undefined && !kiosk;
  useEffect(() => {
    // A draft of another board, or one that was left, is not continued.
    if (editing && value.data && draft.value?.name !== name) draft.value = { ...value.data, name };
    if (!editing && draft.value?.name === name) draft.value = null;
  }, [editing, value.data]);
  const board = editing && draft.value?.name === name ? draft.value.board : value.data?.board;
  const values = valuesOf(board?.variables ?? [], search);
  return (
    <section class={`board-screen ${kiosk ? "kiosk" : ""}`} aria-labelledby="title">
      <Head title={board?.title || name} editing={editing} kiosk={kiosk} of={value} />
      <Missing of={value} />
      {board && (
        <>
          {editing && <EditBar name={name} stored={value.data} done={() => void poll.refresh()} />}
          {board.variables.length > 0 && <Variables board={board} values={values} kiosk={kiosk} />}
          {board.panes.length === 0 && !editing && (
            <Empty title="The board has no panes">
              <a href="?edit=1">Add one</a>
            </Empty>
          )}
          <div class="board">
            {board.panes.map((pane, at) => (
              <article key={at} class={`pane-frame width-${pane.width} height-${pane.height}`} aria-label={titleOf(pane)}>
                {editing && <PaneTools board={board} at={at} />}
                <PaneView pane={pane} values={values} kiosk={kiosk} />
              </article>
            ))}
          </div>
        </>
      )}
    </section>
  );
}

interface HeadProps {
  readonly title: string;
  readonly editing: boolean;
  readonly kiosk: boolean;
  readonly of: Polled<unknown>;
}

function Head({ title, editing, kiosk, of }: HeadProps): JSX.Element {
  const { path: here, query: search, route } = useLocation();
  const address = (change: { readonly [name: string]: string | undefined }): string => {
    const params = new URLSearchParams(Object.entries({ ...search, ...change }).filter((pair): pair is [string, string] => pair[1] !== undefined));
    return params.size > 0 ? `${here}?${params}` : here;
  };
  const show = (): void => {
    route(address({ kiosk: "1", edit: undefined }));
    // Browsers refuse it without a click, and on some devices always: the screen is the same without it.
    document.documentElement.requestFullscreen?.().catch(() => {});
  };
  return (
    <header class="screen">
      <h1 id="title">{title}</h1>
      {kiosk ? <KioskState leave={address({ kiosk: undefined })} /> : <PolledMark of={of} staleMs={3 * BOARD_MS} />}
      {!kiosk && !editing && (
        <span class="actions">
          <a class="button" href={address({ edit: "1" })}>
            Change
          </a>
          <button type="button" onClick={() => void copy(location.href)}>
            Copy link
          </button>
          <button type="button" onClick={show}>
            Kiosk
          </button>
        </span>
      )}
    </header>
  );
}

/** How current the server's state is, on a board on a wall. Reloads the page if the server is of another release. */
function KioskState({ leave }: { leave: string }): JSX.Element {
  const { value } = overview.value;
  const state = useFreshness(value, STALE_MS);
  useEffect(() => {
    if (upgraded.value) location.reload();
  }, [upgraded.value]);
  useEffect(() => stayAwake(), []);
  return (
    <>
      <FreshnessMark state={state} at={value.at} />
      <a class="leave" href={leave}>
        Leave the kiosk
      </a>
    </>
  );
}

/** Keeps the screen on, if the browser can. The browser releases the lock whenever the page is hidden. */
function stayAwake(): () => void {
  let lock: WakeLockSentinel | undefined;
  let ended = false;
  const ask = async (): Promise<void> => {
    if (document.hidden) return;
    // A page without a secure context has no lock; then the settings of the device decide.
    lock = await navigator.wakeLock?.request("screen").catch(() => undefined);
    if (ended) void lock?.release();
  };
  void ask();
  document.addEventListener("visibilitychange", ask);
  return () => {
    ended = true;
    document.removeEventListener("visibilitychange", ask);
    void lock?.release();
  };
}

function Variables({ board, values, kiosk }: { board: Board; values: ReadonlyMap<string, string>; kiosk: boolean }): JSX.Element {
  if (kiosk) {
    return (
      <dl aria-label="Variables">
        {board.variables.map(({ name }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{shown(values.get(name) || "all")}</dd>
          </div>
        ))}
      </dl>
    );
  }
  return (
    <div class="filters" role="group" aria-label="Variables">
      {board.variables.map((variable, at) => (
        <VariableChoice key={`${variable.name} ${at}`} variable={variable} value={values.get(variable.name) ?? ""} />
      ))}
    </div>
  );
}

function VariableChoice({ variable, value }: { variable: Variable; value: string }): JSX.Element {
  const { path: here, query: search, route } = useLocation();
  const choose = (next: string): void => route(`${here}?${new URLSearchParams({ ...search, [parameterOf(variable.name)]: next })}`);
  if (variable.table === "" || variable.field === "") {
    return (
      <label>
        {variable.name} <input value={value} placeholder="all" autocomplete="off" spellcheck={false} onChange={({ currentTarget }) => choose(currentTarget.value.trim())} />
      </label>
    );
  }
  return <OfferedChoice variable={variable} value={value} choose={choose} />;
}

function OfferedChoice({ variable, value, choose }: { variable: Variable; value: string; choose: (value: string) => void }): JSX.Element {
  const { table, field } = variable;
  const params = new URLSearchParams({ by: field, agg: "count()", limit: String(VALUES_MAX) });
  const address = `/v1/tables${path(...splitName(table))}?${params}`;
  const poll = usePoll(address, async (stop) => (await read<QueryPage>(address, { signal: stop })).rows as unknown as Group[], VALUES_MS);
  const { data, error } = poll.value.value;
  const found = (data ?? []).map((group) => group[field]).filter((one) => one !== null && one !== undefined).map(String);
  // The value of a shared link may no longer exist.
  const offered = value === "" || found.includes(value) ? found : [value, ...found];
  return (
    <label>
      {variable.name}{" "}
      <select value={value} onChange={({ currentTarget }) => choose(currentTarget.value)}>
        <option value="">all</option>
        {offered.map((one) => (
          <option key={one} value={one}>
            {shown(one)}
          </option>
        ))}
      </select>
      {error && <span class="bad"> {error.message}</span>}
    </label>
  );
}

/** Changes the board that is edited. */
function change(by: Partial<Board>): void {
  if (draft.value) draft.value = { ...draft.value, board: { ...draft.value.board, ...by } };
}

/** The pane whose editor is open. */
const opened: Signal<number | null> = signal(null);

function EditBar({ name, stored, done }: { name: string; stored: Stored | null; done: () => void }): JSX.Element | null {
  const { path: here, route } = useLocation();
  const failed = useSignal<Problem | null>(null);
  const now = draft.value;
  if (!now || now.name !== name) return null;
  const { board } = now;
  const save = async (etag: string): Promise<void> => {
    failed.value = null;
    try {
      await storeBoard(name, board, etag);
      draft.value = null;
      done();
      say("Stored");
      route(here);
    } catch (error) {
      failed.value = problem(error);
      // Another user has stored the board in the meantime: requests that version.
      if (failed.value.status === 412) done();
    }
  };
  return (
    <div class="edit-bar">
      <div class="bar">
        <label>
          Title <input value={board.title} autocomplete="off" onInput={({ currentTarget }) => change({ title: currentTarget.value })} />
        </label>
        <span class="actions">
          <button
            type="button"
            onClick={() => {
              change({ panes: [...board.panes, NEW_PANE] });
              opened.value = board.panes.length;
            }}
          >
            Add a pane
          </button>
          <button type="button" class="primary" onClick={() => void save(now.etag)}>
            Store
          </button>
          <a class="button" href={here}>
            Discard changes
          </a>
        </span>
      </div>
      <VariableEditor variables={board.variables} change={(variables) => change({ variables })} />
      {failed.value && <Failure error={failed.value} />}
      {failed.value?.status === 412 && stored && stored.etag !== now.etag && (
        <p class="actions">
          <button type="button" onClick={() => void save(stored.etag)}>
            Replace the other version by this one
          </button>
        </p>
      )}
    </div>
  );
}

/** The buttons of a pane while the board is changed. */
function PaneTools({ board: { panes }, at }: { board: Board; at: number }): JSX.Element {
  const pane = panes[at]!;
  const name = titleOf(pane);
  const set = (next: Partial<Pane>): void => change({ panes: panes.map((one, index) => (index === at ? sized({ ...one, ...next }) : one)) });
  const button = (label: string, mark: string, off: boolean, act: () => void): JSX.Element => (
    <button type="button" aria-label={`${label}: ${name}`} title={label} disabled={off} onClick={act}>
      <span aria-hidden="true">{mark}</span>
    </button>
  );
  return (
    <div class="pane-tools">
      {button("Move back", "←", at === 0, () => change({ panes: moved(panes, at, at - 1) }))}
      {button("Move on", "→", at === panes.length - 1, () => change({ panes: moved(panes, at, at + 1) }))}
      {button("Narrower", "⇥⇤", pane.width <= 2, () => set({ width: pane.width - 1 }))}
      {button("Wider", "⇤⇥", pane.width >= COLUMNS, () => set({ width: pane.width + 1 }))}
      {button("Lower", "▴", pane.height <= 1, () => set({ height: pane.height - 1 }))}
      {button("Higher", "▾", pane.height >= HEIGHT_MAX, () => set({ height: pane.height + 1 }))}
      <button type="button" aria-label={`Change: ${name}`} onClick={() => (opened.value = at)}>
        Change
      </button>
      <button type="button" aria-label={`Remove: ${name}`} onClick={() => change({ panes: panes.filter((_, index) => index !== at) })}>
        Remove
      </button>
      {opened.value === at && <PaneEditor pane={pane} change={set} onClose={() => (opened.value = null)} />}
    </div>
  );
}
