// Node resolves `solid-js` to its build for servers, in which signals do not change.
declare module "solid-js/dist/solid.js" {
  export * from "solid-js";
}
