// The benchmark W1: events and cents per tenant and minute, and revenue per product.
import { integer, iso, minute, optional, projection, table, text } from "lantern-sdk";

const tenantMinute = table("tenant_minute", { count: integer("sum"), cents: integer("sum", "cent") });
const byProduct = table("product", { orders: integer("sum"), cents: integer("sum", "cent") });

export default projection({
  name: "w1",
  subscribes: ["page.viewed", "cart.added", "order.placed"],
  attributes: ["tenant"],
  onFailure: "park-event",
  members: { product: text, cents: optional(integer) },
  apply(event) {
    const { product, cents } = event.members;
    const row = tenantMinute.row(iso(minute(event.time)), event.tenant);
    row.count += 1;
    row.cents += cents ?? 0;
    if (event.type === "order.placed") {
      const sold = byProduct.row(product);
      sold.orders += 1;
      sold.cents += cents ?? 0;
    }
  },
});
