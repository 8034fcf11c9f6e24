module lantern.example/rules

go 1.24

require lantern v0.0.0

replace lantern => ../../../go
