// Copies the contract into the package, before it is packed.
import { cpSync, mkdirSync } from "node:fs";

mkdirSync(new URL("../wit/", import.meta.url), { recursive: true });
cpSync(new URL("../../../wit/projection.wit", import.meta.url), new URL("../wit/projection.wit", import.meta.url));
