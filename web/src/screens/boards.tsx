// The boards of the server.
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLocation } from "preact-iso";
import { boardName, type BoardSummary, deleteBoard, FORMAT, firstPanes, listBoards, storeBoard } from "../board.js";
import { ActionButton } from "../confirm.js";
import { moment, zoneName } from "../format.js";
import { Empty, Failure, Pane, PolledMark } from "../parts.js";
import { usePoll } from "../polled.js";
import { type Problem, path, problem } from "../problem.js";
import { overview } from "../server.js";

export default function BoardsScreen(): JSX.Element {
  const poll = usePoll("boards", listBoards, 5000);
  const { value } = poll.value;
  return (
    <section class="narrow" aria-labelledby="title">
      <header class="screen">
        <h1 id="title">Boards</h1>
        <PolledMark of={value} staleMs={15_000} />
      </header>
      <Create />
      <Pane of={value}>
        {(boards) =>
          boards.length === 0 ? (
            <Empty title="No board yet">
              <p>A board shows numbers, charts and rows of several tables together, and changes with them. Give it a title above.</p>
            </Empty>
          ) : (
            <ul class="links boards" aria-label="Boards">
              {boards.map((board) => (
                <Line key={board.name} board={board} done={() => void poll.refresh()} />
              ))}
            </ul>
          )
        }
      </Pane>
    </section>
  );
}

function Line({ board, done }: { board: BoardSummary; done: () => void }): JSX.Element {
  return (
    <li class="card">
      <header>
        <h2>
          <a href={`/boards${path(board.name)}`}>{board.title || board.name}</a>
        </h2>
        <span class="soft">
          {board.name}, stored {moment(board.changed_us)} {zoneName()}
        </span>
        <span class="actions">
          <ActionButton
            tone="danger"
            action={{
              title: "Delete board",
              does: `Deletes the board “${board.title || board.name}”. This cannot be undone; tables and rows stay.`,
              touches: ["Screens that show it say that it is gone"],
              run: () => deleteBoard(board),
              then: done,
            }}
          />
        </span>
      </header>
    </li>
  );
}

/** A form for a new board. */
function Create(): JSX.Element {
  const { route } = useLocation();
  const title = useSignal("");
  const filled = useSignal(true);
  const failed = useSignal<Problem | null>(null);
  const create = async (): Promise<void> => {
    failed.value = null;
    const name = boardName(title.value);
    const panes = filled.value ? firstPanes(overview.value.value.data?.projections ?? []) : [];
    try {
      await storeBoard(name, { format: FORMAT, title: title.value.trim(), variables: [], panes }, null);
      route(`/boards${path(name)}?edit=1`);
    } catch (error) {
      failed.value = problem(error);
    }
  };
  return (
    <form
      class="bar"
      onSubmit={(event) => {
        event.preventDefault();
        void create();
      }}
    >
      <label>
        Title of a new board <input required value={title.value} autocomplete="off" onInput={({ currentTarget }) => (title.value = currentTarget.value)} />
      </label>
      <label>
        <input type="checkbox" checked={filled.value} onChange={({ currentTarget }) => (filled.value = currentTarget.checked)} /> with panes of the first tables
      </label>
      <button type="submit" class="primary">
        Create board
      </button>
      {failed.value && <Failure error={failed.value} />}
    </form>
  );
}
