module lantern.example/soak

go 1.24

require lantern v0.0.0

replace lantern => ..
