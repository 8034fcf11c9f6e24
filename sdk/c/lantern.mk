# Builds and tests a projection in C or C++. A project's Makefile sets NAME and SOURCES, and
# TESTS if it has native tests, and includes this file:
#
#     make         build/NAME.wasm
#     make test    compiles SOURCES and TESTS with the machine's compiler, and runs them
#
# The compiler for WebAssembly is `zig cc` (`pip install ziglang`), or another clang of
# version 19 or later with wasi-libc: `make WASM_CC="clang --target=wasm32-wasi"`.

LANTERN_C := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
VENV_ZIG := $(LANTERN_C)/../../target/zig/bin/python
ZIG ?= $(shell if [ -x $(VENV_ZIG) ]; then echo $(VENV_ZIG) -m ziglang; elif command -v zig; then :; else echo python3 -m ziglang; fi)
WASM_CC ?= $(ZIG) cc -target wasm32-wasi
CC_OPTIONS = -O2 -Wall -Wextra -Wno-unused-parameter -Wno-c23-extensions -I $(LANTERN_C)/src
WASM_OPTIONS = $(CC_OPTIONS) -mexec-model=reactor -Wl,--strip-all
NATIVE_OPTIONS = $(CC_OPTIONS) -Wno-unknown-warning-option -g -I . -Wa,-I$(LANTERN_C)/src -Wa,-I$(LANTERN_C)/../rust -D_GNU_SOURCE $(SANITIZE)
SDK_SOURCES = $(wildcard $(LANTERN_C)/src/*.c)
SDK_HEADERS = $(wildcard $(LANTERN_C)/src/*.h)

build/$(NAME).wasm: $(SOURCES) $(SDK_SOURCES) $(SDK_HEADERS)
	@mkdir -p build
	@$(WASM_CC) --version >/dev/null 2>&1 || { echo "The compiler for WebAssembly is missing: pip install ziglang, or set WASM_CC" >&2; exit 1; }
	$(WASM_CC) $(WASM_OPTIONS) -o $@ $(SOURCES) $(SDK_SOURCES)

build/test: $(SOURCES) $(TESTS) $(SDK_SOURCES) $(SDK_HEADERS)
	@mkdir -p build
	$(CC) $(NATIVE_OPTIONS) -o $@ $(SOURCES) $(TESTS) $(SDK_SOURCES) -lm

.PHONY: test clean
test:: build/test
	./build/test

clean::
	rm -rf build
