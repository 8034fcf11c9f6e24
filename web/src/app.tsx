// The frame of all screens, and which screen an address shows.
import { signal, useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { LocationProvider, lazy, Route, Router, useLocation } from "preact-iso";
import { useEffect, useRef } from "preact/hooks";
import { feedLost } from "./feed.js";
import { count, counted, rate, zone, zoneName } from "./format.js";
import { Badge, FreshnessMark, notice, Sparkline } from "./parts.js";
import { useFreshness } from "./polled.js";
import OverviewScreen from "./screens/overview.js";
import { eventsOf, overview, rates, served, STALE_MS, upgraded } from "./server.js";
import { dropped } from "./upload.js";

const TableScreen = lazy(() => import("./screens/table.js"));
const ProjectionScreen = lazy(() => import("./screens/projection.js"));
const ParkedScreen = lazy(() => import("./screens/parked.js"));
const BoardsScreen = lazy(() => import("./screens/boards.js"));
const BoardScreen = lazy(() => import("./screens/board.js"));
const UploadScreen = lazy(() => import("./screens/upload.js"));
const DeclareScreen = lazy(() => import("./screens/declare.js"));
const EventsScreen = lazy(() => import("./screens/events.js"));
const ServerScreen = lazy(() => import("./screens/server.js"));

export function App(): JSX.Element {
  useEffect(() => overview.start(), []);
  return (
    <LocationProvider>
      <DropTarget>
        <a class="skip" href="#main">
          Skip to the content
        </a>
        <TopBar />
        <Rail />
        <main id="main" tabIndex={-1}>
          <Router>
            <Route path="/" component={OverviewScreen} />
            <Route path="/p/:name" component={ProjectionScreen} />
            <Route path="/p/:name/:tab" component={ProjectionScreen} />
            <Route path="/t/:projection/:table" component={TableScreen} />
            <Route path="/boards" component={BoardsScreen} />
            <Route path="/boards/:name" component={BoardScreen} />
            <Route path="/parked" component={ParkedScreen} />
            <Route path="/upload" component={UploadScreen} />
            <Route path="/upload/declaration" component={DeclareScreen} />
            <Route path="/events" component={EventsScreen} />
            <Route path="/server" component={ServerScreen} />
            <Route path="/server/:tab" component={ServerScreen} />
            <Route default component={Nothing} />
          </Router>
        </main>
        <p class={`notice ${notice.value?.bad ? "bad" : ""}`} role="status" hidden={notice.value === null}>
          {notice.value?.text}
        </p>
      </DropTarget>
    </LocationProvider>
  );
}

function Nothing(): JSX.Element {
  return (
    <section>
      <h1>Nothing here</h1>
      <p>
        No screen has this address. <a href="/">See all projections</a>
      </p>
    </section>
  );
}

/** Whether only a board is shown, without the frame of all screens. */
function useKiosk(): boolean {
  const { path, query } = useLocation();
  return path.startsWith("/boards/") && query.kiosk !== undefined;
}

/** The whole window takes a file that is dropped on it. */
function DropTarget({ children }: { children: ComponentChildren }): JSX.Element {
  const { route } = useLocation();
  const kiosk = useKiosk();
  const over = useSignal(false);
  const depth = useRef(0);
  const has = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  const move = (event: DragEvent, by: number): void => {
    if (!has(event)) return;
    event.preventDefault();
    depth.current = Math.max(0, depth.current + by);
    over.value = depth.current > 0;
  };
  return (
    <div
      class={kiosk ? "frame alone" : "frame"}
      onDragEnter={(event) => move(event, 1)}
      onDragLeave={(event) => move(event, -1)}
      onDragOver={(event) => move(event, 0)}
      onDrop={(event) => {
        if (!has(event)) return;
        event.preventDefault();
        depth.current = 0;
        over.value = false;
        const file = event.dataTransfer?.files[0];
        if (!file) return;
        dropped.value = file;
        route("/upload");
      }}
    >
      {children}
      {over.value && (
        <div class="droppable" aria-hidden="true">
          Drop the file to check and upload it
        </div>
      )}
    </div>
  );
}

function TopBar(): JSX.Element | null {
  const { value } = overview.value;
  const state = useFreshness(value, STALE_MS);
  if (useKiosk()) return null;
  const log = rates.get("log") ?? [];
  return (
    <header class="top">
      <a class="brand" href="/">
        <img src="/icon.svg" alt="" width="24" height="24" /> Lantern
      </a>
      <dl aria-label="The log">
        <div>
          <dt>events</dt>
          <dd>{value.data ? count(eventsOf(value.data.status)) : "–"}</dd>
        </div>
        <div>
          <dt>events/s</dt>
          <dd>
            {log.length > 0 ? rate(log.at(-1)!) : "–"} <Sparkline values={log} />
          </dd>
        </div>
      </dl>
      <span class="states" role="status">
        {state === "live" ? <Health /> : <FreshnessMark state={state} at={value.at} />}
        {feedLost.value && state === "live" && <Badge tone="bad" text="feed lost" />}
      </span>
      {upgraded.value && (
        <button type="button" onClick={() => location.reload()}>
          The server was updated: reload
        </button>
      )}
      <Choices />
    </header>
  );
}

function Health(): JSX.Element {
  const { data } = overview.value.value;
  if (!data?.ready.ready) return <Badge tone="bad" text="not ready" />;
  const warnings = data.ready.warnings.length;
  return warnings > 0 ? <Badge tone="busy" text={counted(warnings, "warning")} /> : <Badge tone="good" text="ready" />;
}

type Theme = "auto" | "light" | "dark";
const THEMES: readonly Theme[] = ["auto", "light", "dark"];
const theme = signal<Theme>(THEMES.find((one) => one === localStorage.getItem("theme")) ?? "auto");

/** Shows the page in a theme, now and at the next visit. */
function choose(wanted: Theme): void {
  theme.value = wanted;
  localStorage.setItem("theme", wanted);
  document.documentElement.dataset.theme = wanted;
}
choose(theme.value);

function Choices(): JSX.Element {
  return (
    <>
      <button type="button" class="plain" popovertarget="choices" aria-label="Theme and time zone">
        ◑
      </button>
      <div id="choices" popover="auto" class="menu">
        <fieldset>
          <legend>Theme</legend>
          {THEMES.map((one) => (
            <label key={one}>
              <input type="radio" name="theme" checked={theme.value === one} onChange={() => choose(one)} /> {one}
            </label>
          ))}
        </fieldset>
        <fieldset>
          <legend>Times, now in {zoneName()}</legend>
          {(["utc", "local"] as const).map((one) => (
            <label key={one}>
              <input
                type="radio"
                name="zone"
                checked={zone.value === one}
                onChange={() => {
                  zone.value = one;
                  localStorage.setItem("zone", one);
                }}
              />{" "}
              {one === "utc" ? "UTC" : "this browser's zone"}
            </label>
          ))}
        </fieldset>
      </div>
    </>
  );
}

/** The title of the window on a screen: `revenue/by_product – Lantern`. */
function titleOf(path: string): string {
  const [kind = "", ...rest] = path.split("/").filter((part) => part !== "");
  const name = kind === "p" || kind === "t" || (kind === "boards" && rest.length > 0) ? rest.join("/") : kind;
  try {
    return name === "" ? "Lantern" : `${decodeURIComponent(name)} – Lantern`;
  } catch {
    // The address has a `%` that encodes nothing.
    return `${name} – Lantern`;
  }
}

function Rail(): JSX.Element | null {
  const { path } = useLocation();
  const kiosk = useKiosk();
  useEffect(() => {
    document.title = titleOf(path);
  }, [path]);
  if (kiosk) return null;
  const parked = (overview.value.value.data?.projections ?? []).reduce((sum, projection) => sum + (served(projection)?.parked ?? 0), 0);
  const items = [
    { to: "/", mark: "▤", text: "Projections", short: "Home", here: path === "/" || path.startsWith("/p/") || path.startsWith("/t/") },
    { to: "/boards", mark: "▦", text: "Boards", here: path.startsWith("/boards") },
    { to: "/events", mark: "≋", text: "Events", here: path === "/events" },
    { to: "/parked", mark: "▲", text: "Parked", here: path === "/parked", number: parked },
    { to: "/upload", mark: "↥", text: "Upload", here: path.startsWith("/upload") },
    { to: "/server", mark: "◈", text: "Server", here: path.startsWith("/server") },
  ];
  return (
    <nav class="rail" aria-label="Screens">
      {items.map(({ to, mark, text, short, here, number = 0 }) => (
        <a key={to} href={to} aria-current={here ? "page" : undefined}>
          <span aria-hidden="true">{mark}</span> <span class={short ? "long" : ""}>{text}</span>
          {short && <span class="short">{short}</span>}
          {number > 0 && <span class="number">{count(number)}</span>}
        </a>
      ))}
    </nav>
  );
}
