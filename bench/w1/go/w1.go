// The benchmark W1: events and cents per tenant and minute, and revenue per product.
package main

import "lantern"

type perMinute struct {
	Count int64 `lantern:"count,sum"`
	Cents int64 `lantern:"cents,sum,unit=cent"`
}

type perProduct struct {
	Orders int64 `lantern:"orders,sum"`
	Cents  int64 `lantern:"cents,sum,unit=cent"`
}

var (
	tenantMinute = lantern.Table[perMinute]{Name: "tenant_minute"}
	product      = lantern.Table[perProduct]{Name: "product"}

	productName = lantern.Member[string]{Name: "product"}
	cents       = lantern.Member[int64]{Name: "cents"}
)

func apply(event *lantern.Event) error {
	amount, _ := cents.Get(event)
	row := tenantMinute.Row(lantern.Key(event.Time().Floor(lantern.Minute).String(), event.Tenant()))
	row.Count++
	row.Cents = lantern.Add(row.Cents, amount)
	if event.Type() == "order.placed" {
		sold := product.Row(productName.Of(event))
		sold.Orders++
		sold.Cents = lantern.Add(sold.Cents, amount)
	}
	return nil
}

func init() {
	lantern.Register(lantern.Projection{
		Name:       "w1",
		Version:    "0.1.0",
		Subscribes: []string{"page.viewed", "cart.added", "order.placed"},
		Attributes: lantern.Tenant,
		Members:    []lantern.AnyMember{&productName, &cents},
		Tables:     []lantern.AnyTable{&tenantMinute, &product},
		OnFailure:  lantern.ParkEvent,
		Apply:      apply,
	})
}

func main() {}
