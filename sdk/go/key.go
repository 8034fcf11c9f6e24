package lantern

import "strings"

// keyBytesMax is the longest key that the host takes.
const keyBytesMax = 1024

// Key builds a key of parts, with `/` between them:
//
//	lantern.Key(minute.String(), user)
func Key(parts ...string) string {
	var key strings.Builder
	for i, part := range parts {
		if i > 0 {
			key.WriteByte('/')
		}
		writePart(&key, part)
	}
	return key.String()
}

func writePart(key *strings.Builder, part string) {
	if !strings.ContainsAny(part, "/%") {
		key.WriteString(part)
		return
	}
	for i := 0; i < len(part); i++ {
		switch part[i] {
		case '/':
			key.WriteString("%2F")
		case '%':
			key.WriteString("%25")
		default:
			key.WriteByte(part[i])
		}
	}
}

// InTenant returns the key of a row of a per-tenant table, or of a tenant's timer.
func InTenant(tenant, key string) string { return tenant + "\x00" + key }

// splitTenant splits a key into the tenant, which ends at U+0000, and the rest. If U+0000 is
// elsewhere in the key, it returns false.
func splitTenant(key string) (tenant, rest string, ok bool) {
	tenant, rest, found := strings.Cut(key, "\x00")
	if !found {
		return "", key, true
	}
	return tenant, rest, tenant != "" && !strings.Contains(rest, "\x00")
}
