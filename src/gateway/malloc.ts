// For those above the gateway that run it in a process of its own; the bindings are below their reach.
export { boundMalloc } from '../../bindings/malloc.js';
