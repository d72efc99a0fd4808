// The admin protocol: JSON over HTTP/1.1 on a unix socket, so that curl can speak it too.
//
//   POST /v1/<method>   body: the parameters, a JSON object
//     200 application/x-ndjson, one JSON value a line:
//        {"progress": ...}            any number of times, at most ten a second
//        {"items": [...]}             any number of times: an answer too long for one line, none left out
//        {"result": ...}              the last line, or
//        {"error": {code, message}}   the last line
//   GET /v1/<method>    the same for methods without parameters that change nothing: 200 {...} or an error status
//   GET /metrics        Prometheus text
//
// A stream that ends without a last line means that the daemon died. A caller that closes the connection aborts the work.

export const PARAMETERS_BYTES_MAX = 1 << 20;
export const PROGRESS_INTERVAL_MS = 100;

export type Line =
  | { readonly progress: unknown }
  | { readonly items: readonly unknown[] }
  | { readonly result: unknown }
  | { readonly error: { readonly code: string; readonly message: string } };

/**
 * Codes of its own: NO_METHOD, BAD_PARAMETERS (the caller's mistake), NOT_RUNNING (nobody listens), DISCONNECTED (the daemon died
 * or was stopped meanwhile). Otherwise the code of what failed, mostly an errno name.
 */
export class RpcError extends Error {
  constructor(
    readonly code: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'RpcError';
  }
}

export function errorLine(error: unknown): Line {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return {
    error: {
      code: typeof code === 'string' ? code : 'FAILED',
      message: typeof message === 'string' ? message : String(error),
    },
  };
}
