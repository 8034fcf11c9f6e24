// The copy of one table. It applies data frames, and checks that each frame continues the
// rows. A snapshot or delta that comes in parts is applied in one step, when its last part
// has arrived.
import type { Delta, Field, Lag, Reset, Snapshot, Subscribed, Tick } from "./frames.js";
import type { Change, Offsets, Saved } from "./types.js";

/** The frame does not begin at the commit of the rows: a frame is missing. */
export const GAP = Symbol("gap");

type Rows<R> = Map<string, R>;

interface DeltaParts<R> {
  from: number;
  to: number;
  up: Rows<R>;
  del: string[];
}

export class Mirror<R> {
  epoch: string | null = null;
  commit: number | null = null;
  offsets: Offsets = {};
  token: string | undefined;
  fields: readonly Field[] = [];
  shape: string | null = null;
  lag: Lag | null = null;

  #rows: Rows<R> = new Map();
  /** Whether a reader has the map of the rows. Then a change is applied to a copy of the map. */
  #lent = false;
  /** Rows of a snapshot that is not complete yet. */
  #snap: Rows<R> | undefined;
  /** Changes of a delta that is not complete yet. */
  #delta: DeltaParts<R> | undefined;
  /**
   * A snapshot that is older than the shown rows. It is not shown until deltas have
   * brought it to the commit of the shown rows, because the client never shows an older
   * commit after a newer one.
   */
  #behind: { commit: number; rows: Rows<R> } | undefined;

  /** The rows, for reading at once. */
  get rows(): ReadonlyMap<string, R> {
    return this.#rows;
  }

  /** The rows, in a map that never changes. */
  lend(): ReadonlyMap<string, R> {
    this.#lent = true;
    return this.#rows;
  }

  /** Continues from saved rows. */
  restore(saved: Saved<R>): void {
    ({ epoch: this.epoch, commit: this.commit, offsets: this.offsets, token: this.token } = saved);
    this.#rows = new Map(saved.rows);
  }

  /** Discards what is not complete: the connection was lost, or a snapshot follows. */
  interrupt(): void {
    this.#snap = this.#delta = this.#behind = undefined;
  }

  /** Keeps the description of the rows in `ok` or `reset`, if there is one. */
  described({ fields, shape }: Pick<Reset, "fields" | "shape">): void {
    if (!fields) return;
    this.fields = fields;
    this.shape = shape ?? null;
  }

  /**
   * Notes that the server has accepted the subscription. If the server resumes the subscription,
   * the mirror takes the server's number for the commit of its rows, which may differ from the
   * number before.
   */
  accepted(ok: Subscribed): Change<R> | undefined {
    this.described(ok);
    const commit = ok.commit ?? null;
    if (!ok.resumed || commit === null || commit === this.commit) return;
    this.commit = commit;
    return { type: "resumed", commit };
  }

  snap({ epoch, commit, rows, more, offsets, tok }: Snapshot): Change<R> | undefined {
    this.#snap ??= new Map();
    put(this.#snap, rows);
    if (more) return;
    const whole = this.#snap;
    this.interrupt();
    if (this.epoch === epoch && this.commit !== null && commit < this.commit) {
      this.#behind = { commit, rows: whole };
      return;
    }
    this.#replace(whole);
    this.epoch = epoch;
    return this.#snapshot(commit, offsets, tok);
  }

  delta({ from, to, up, del, more, merged = false, offsets, tok }: Delta): Change<R> | typeof GAP | undefined {
    const parts: DeltaParts<R> = (this.#delta ??= { from, to, up: new Map(), del: [] });
    if (this.#snap || this.#at() !== from || parts.from !== from || parts.to !== to) return GAP;
    put(parts.up, up);
    parts.del.push(...del);
    if (more) return;
    this.#delta = undefined;
    const rows = this.#behind?.rows ?? this.#own();
    for (const [key, row] of parts.up) rows.set(key, row);
    for (const key of parts.del) rows.delete(key);
    return (
      this.#caughtUp(to, offsets, tok) ??
      (this.#moved(to, offsets, tok) && { type: "delta", from, to, up: parts.up, del: parts.del, merged, offsets: this.offsets })
    );
  }

  tick({ from, to, lag = null, offsets, tok }: Tick): Change<R> | typeof GAP | undefined {
    if (this.#snap || this.#at() !== from || this.#delta) return GAP;
    this.lag = lag;
    const token = tok ?? this.token;
    return (
      this.#caughtUp(to, offsets, token) ??
      (this.#moved(to, offsets, token) && { type: "tick", commit: to, offsets: this.offsets, lag })
    );
  }

  /**
   * Whether the rows are current after the last frame, which means that no older snapshot is held
   * back.
   */
  get current(): boolean {
    return !this.#behind && !this.#snap && !this.#delta;
  }

  /** The commit that the next delta must begin at. */
  #at(): number | null {
    return this.#behind ? this.#behind.commit : this.commit;
  }

  /**
   * Notes that deltas have brought a snapshot that is held back to the commit `to`. Shows the
   * snapshot if it is no longer older than the rows. Does nothing if there is no such snapshot.
   */
  #caughtUp(to: number, offsets?: Offsets, tok?: string | null): Change<R> | undefined {
    const behind = this.#behind;
    if (!behind) return;
    behind.commit = to;
    if (this.commit !== null && to < this.commit) return;
    this.#behind = undefined;
    this.#replace(behind.rows);
    return this.#snapshot(to, offsets, tok);
  }

  /** Sets the commit of the rows, unless a snapshot is held back. */
  #moved(to: number, offsets?: Offsets, tok?: string | null): true | undefined {
    if (this.#behind) return;
    this.commit = to;
    this.offsets = offsets ?? this.offsets;
    this.token = tok ?? undefined;
    return true;
  }

  #snapshot(commit: number, offsets?: Offsets, tok?: string | null): Change<R> {
    this.#moved(commit, offsets, tok);
    const { epoch, offsets: at } = this;
    return { type: "snapshot", epoch: epoch ?? "", commit, offsets: at, rows: this.lend(), missed: 0 };
  }

  #replace(rows: Rows<R>): void {
    this.#rows = rows;
    this.#lent = false;
  }

  /** The rows to change; a copy if a reader has them. */
  #own(): Rows<R> {
    if (this.#lent) this.#replace(new Map(this.#rows));
    return this.#rows;
  }
}

/** Puts the members of a JSON object into a map. */
function put<R>(into: Rows<R>, rows: { [key: string]: object }): void {
  for (const key of Object.keys(rows)) into.set(key, rows[key] as R);
}
