module lantern

go 1.24
