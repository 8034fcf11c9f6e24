import { distinct, integer, parameters, projection, table, text, timeZone } from "lantern-sdk";

const settings = parameters({ zone: "UTC" });

const days = table(
  "days",
  { date: text, type: text, events: integer("sum"), users: distinct },
  { key: ["date", "type"] },
);

export default projection({
  name: "daily-users",
  version: "0.1.0",
  subscribes: ["*"],
  onFailure: "park-event",
  members: { user: text },

  apply(event) {
    const { user } = event.members;
    const date = timeZone(settings.zone).date(event.time);
    const row = days.row(date, event.type);
    row.events += 1;
    row.users.add(user);
  },
});
