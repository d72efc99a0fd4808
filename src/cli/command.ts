// How every command looks: a name, one line of what it does, --json, an example in --help; what it answers is printed for
// people or, with --json, as one JSON value on a line.
import type { Command } from 'commander';
import type { Context } from './context.js';

export interface CommonOptions {
  readonly json?: boolean;
}

export interface CommandText {
  /** `name ARGUMENT [optional]` as commander reads it. */
  readonly usage: string;
  readonly description: string;
  readonly example: string;
}

export function defineCommand(program: Command, { usage, description, example }: CommandText): Command {
  return program
    .command(usage)
    .description(description)
    .option('--json', 'print JSON for scripts')
    .addHelpText('after', `\nExample:\n  $ ${example.split('\n').join('\n  $ ')}`);
}

export function print(context: Context, options: CommonOptions, value: unknown, human: () => string): void {
  context.stdout.write(options.json ? `${JSON.stringify(value)}\n` : `${human()}\n`);
}
