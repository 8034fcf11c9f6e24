/* The table of all time zones: 59 KB. The linker leaves it out of a projection that uses
 * no zone. */
#include <stddef.h>

#ifdef __has_embed
const unsigned char ln_zones[] = {
#if __has_embed("zones.bin")
#embed "zones.bin" /* in the SDK's package */
#else
#embed "../../rust/zones.bin"
#endif
};
const size_t ln_zones_bytes = sizeof ln_zones;
#else
/* For compilers without `#embed`: the assembler finds the file by its option -I. */
__asm__(".pushsection .rodata\n.globl ln_zones, ln_zones_bytes\n"
        "ln_zones: .incbin \"zones.bin\"\nln_zones_end:\n.balign 8\nln_zones_bytes: .quad ln_zones_end - ln_zones\n.popsection\n");
#endif
