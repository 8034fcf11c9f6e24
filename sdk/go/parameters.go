package lantern

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Parameters are the values that a version was uploaded with. Read them in Setup.
type Parameters struct {
	values map[string]string
}

// ReadParameters reads the parameters. It returns an error if there is one whose name is not
// among `names`, or if they are not a JSON object.
func ReadParameters(names ...string) (*Parameters, error) {
	read := &Parameters{values: make(map[string]string)}
	r := &reader{text: call.parameters}
	if r.next() == 0 {
		return read, nil
	}
	err := r.members(func(name string) error {
		value, err := r.value()
		if err != nil {
			return fmt.Errorf("the parameter %q: %w", name, err)
		}
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no parameter %q", name)
		}
		if _, twice := read.values[name]; twice {
			return fmt.Errorf("the parameter %q is given more than once", name)
		}
		if value != "null" {
			read.values[name] = value
		}
		return nil
	})
	if err == errJSON {
		err = errors.New("the parameters are not a JSON object")
	}
	if err != nil {
		return nil, err
	}
	return read, nil
}

// Text returns the value of a parameter, or `otherwise` if it is not given.
func (p *Parameters) Text(name, otherwise string) (string, error) {
	value, found := p.values[name]
	if !found {
		return otherwise, nil
	}
	r := &reader{text: value}
	text, ok := r.string()
	if !ok {
		return "", fmt.Errorf("the parameter %q is not text", name)
	}
	return text, nil
}

// Integer returns the value of a parameter, or `otherwise` if it is not given.
func (p *Parameters) Integer(name string, otherwise int64) (int64, error) {
	value, found := p.values[name]
	if !found {
		return otherwise, nil
	}
	number, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the parameter %q is not an integer", name)
	}
	return number, nil
}

// Number returns the value of a parameter, or `otherwise` if it is not given.
func (p *Parameters) Number(name string, otherwise float64) (float64, error) {
	value, found := p.values[name]
	if !found {
		return otherwise, nil
	}
	r := &reader{text: value}
	number, ok := r.double()
	if !ok {
		return 0, fmt.Errorf("the parameter %q is not a number", name)
	}
	return number, nil
}

// Boolean returns the value of a parameter, or `otherwise` if it is not given.
func (p *Parameters) Boolean(name string, otherwise bool) (bool, error) {
	switch value, found := p.values[name]; {
	case !found:
		return otherwise, nil
	case value == "true" || value == "false":
		return value == "true", nil
	}
	return false, fmt.Errorf("the parameter %q is not true or false", name)
}
