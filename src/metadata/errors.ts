// Failing with an errno. A lookup of an absent name precedes nearly every create, so an expected failure must cost little:
// it carries no stack, which nobody reads when the code is ENOENT.
import { MetadataError } from './contract.js';

export function errno(code: string, message: string): MetadataError {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  const error = new MetadataError(code, message);
  Error.stackTraceLimit = limit;
  return error;
}

/** A record that no version of this service writes: damage, not a request's fault. */
export function corrupt(what: string): MetadataError {
  return new MetadataError('EIO', `metadata is damaged: ${what}; run fsck`);
}
