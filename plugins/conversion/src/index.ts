// How many users get through the steps of a funnel, and how long they take, by group.
import { integer, optional, parameters, percentiles, projection, table, text, timestamp } from "lantern-sdk";

const settings = parameters({
  /** Event types, first step first. */
  steps: ["page.viewed", "cart.added", "order.placed"] as string[],
  /** The longest time from the first step to the last. */
  within_s: 86_400,
});

const steps = table(
  "steps",
  {
    group: text,
    step: integer,
    type: text,
    users: integer("sum", "journeys"),
    from_start: percentiles("sketch", "ms"),
    from_previous: percentiles("sketch", "ms"),
  },
  { key: ["group", "step"], description: "Journeys that reached a step, and their times, by group." },
);
const totals = table(
  "totals",
  { group: text, started: integer("sum"), completed: integer("sum"), expired: integer("sum"), outside: integer("sum") },
  { key: "group", description: "Journeys that began, ended and expired, and events outside of a journey, by group." },
);
const journeys = table(
  "journeys",
  { user: text, group: text, step: integer, start: timestamp, last: timestamp },
  { key: "user", private: true },
);

const elapsedMs = (from: number, to: number): number => Math.max(0, Math.floor((to - from) / 1_000));

function reach(group: string, step: number, startMs: number, previousMs: number): void {
  const row = steps.row(group, step);
  row.type = settings.steps[step]!;
  row.users += 1;
  row.from_start.add(startMs);
  row.from_previous.add(previousMs);
}

export default projection({
  name: "conversion",
  version: "0.1.0",
  description: "Steps of a funnel: how many users get how far, and how long they take",
  subscribes: () => settings.steps,
  // The order of a user's events matters, so a failed one holds back the later ones.
  onFailure: "park-subject",
  members: { user: optional(text), country: optional(text) },

  setup() {
    const { steps, within_s } = settings;
    if (steps.length < 2 || steps.some((type) => typeof type !== "string" || type === "")) {
      throw new Error("`steps` must be at least two event types");
    }
    if (new Set(steps).size < steps.length) throw new Error("`steps` has a type twice");
    if (!(within_s > 0)) throw new Error("`within_s` must be greater than 0");
  },

  apply(event) {
    const { user, country } = event.members;
    const step = settings.steps.indexOf(event.type);
    const own = country ?? "unknown";
    if (user === null || user === "") {
      totals.row(own).outside += 1;
      return;
    }
    let journey = journeys.update(user);
    if (journey !== null && event.time - journey.start > settings.within_s * 1_000_000) {
      totals.row(journey.group).expired += 1;
      journeys.delete(user);
      journey = null;
    }
    if (journey === null) {
      if (step !== 0) {
        totals.row(own).outside += 1;
        return;
      }
      journeys.put(user, { group: own, step: 0, start: event.time, last: event.time });
      totals.row(own).started += 1;
      reach(own, 0, 0, 0);
      return;
    }
    // A repeated step changes nothing. A step that comes too early counts in
    // `outside`.
    if (step <= journey.step) return;
    if (step !== journey.step + 1) {
      totals.row(journey.group).outside += 1;
      return;
    }
    reach(journey.group, step, elapsedMs(journey.start, event.time), elapsedMs(journey.last, event.time));
    journey.step = step;
    journey.last = Math.max(journey.last, event.time);
    if (step === settings.steps.length - 1) {
      totals.row(journey.group).completed += 1;
      journeys.delete(user);
    }
  },
});
