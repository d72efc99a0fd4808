// Values as they are written on the command line, checked before anything is done with them.
import { resolve } from 'node:path';
import { InvalidArgumentError } from 'commander';
import { parseSize } from '../daemon/size.js';
import { type Context, Misuse } from './context.js';

export function sizeArgument(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw new InvalidArgumentError('Expected a size such as 64MiB or 10G.');
  return bytes;
}

export function countArgument(text: string): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 1)
    throw new InvalidArgumentError('Expected a whole number above 0.');
  return count;
}

export function secondsArgument(text: string): number {
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= 86_400)) throw new InvalidArgumentError('Expected seconds, above 0.');
  return seconds;
}

/** `file:DIR` with DIR made absolute. */
export function absoluteStore(context: Context, store: string): string {
  const directory = /^file:(.+)$/.exec(store)?.[1];
  if (directory === undefined)
    throw new Misuse(
      `"${store}" is not a store; expected file:DIRECTORY, for example file:./.penstock/store`,
    );
  return `file:${resolve(context.directory, directory)}`;
}
