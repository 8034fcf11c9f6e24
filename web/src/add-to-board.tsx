// Puts what a table screen shows on a board.
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { boardName, boardOf, type BoardSummary, FORMAT, listBoards, loadBoard, type Pane, storeBoard } from "./board.js";
import { Dialog, Failure, say } from "./parts.js";
import { type Problem, path, problem } from "./problem.js";
import { Select } from "./select.js";

export function AddToBoard({ pane }: { pane: Pane }): JSX.Element {
  const open = useSignal(false);
  return (
    <>
      <button type="button" onClick={() => (open.value = true)}>
        Add to a board
      </button>
      {open.value && <Choice pane={pane} onClose={() => (open.value = false)} />}
    </>
  );
}

function Choice({ pane, onClose }: { pane: Pane; onClose: () => void }): JSX.Element {
  const boards = useSignal<readonly BoardSummary[] | null>(null);
  const chosen = useSignal("");
  const title = useSignal("");
  const failed = useSignal<Problem | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    listBoards(stop.signal).then(
      (list) => {
        boards.value = list;
        chosen.value = list[0]?.name ?? "";
      },
      (error) => {
        if (!stop.signal.aborted) failed.value = problem(error);
      },
    );
    return () => stop.abort();
  }, []);
  const add = async (): Promise<void> => {
    failed.value = null;
    try {
      const name = chosen.value || boardName(title.value);
      if (chosen.value === "") {
        await storeBoard(name, { ...boardOf({ format: FORMAT, title: title.value.trim() }), panes: [pane] }, null);
      } else {
        const { board, etag } = await loadBoard(name);
        await storeBoard(name, { ...board, panes: [...board.panes, pane] }, etag);
      }
      say(`Added to the board ${name}`);
      onClose();
    } catch (error) {
      failed.value = problem(error);
    }
  };
  return (
    <Dialog title="Add to a board" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void add();
        }}
      >
        {boards.value === null && failed.value === null && <p class="soft">Loading …</p>}
        {boards.value !== null && <Select label="Board" value={chosen.value} options={[...boards.value.map(({ name, title: shown }) => [name, shown || name] as const), ["", "a new one"]]} onChange={(name) => (chosen.value = name)} />}
        {boards.value !== null && chosen.value === "" && (
          <label>
            Title <input required value={title.value} autocomplete="off" onInput={({ currentTarget }) => (title.value = currentTarget.value)} />
          </label>
        )}
        {failed.value && <Failure error={failed.value} />}
        <p class="actions">
          <button type="submit" class="primary" disabled={boards.value === null}>
            Add
          </button>
          {chosen.value !== "" && <a href={`/boards${path(chosen.value)}`}>See the board</a>}
        </p>
      </form>
    </Dialog>
  );
}
