// The command line as a function: arguments in, exit code out (0 done, 1 failed, 2 misused). An error is one line on standard
// error that says what to do; with --json it is a JSON value on standard output too.
import { Command, CommanderError } from 'commander';
import { VERSION } from '../daemon/version.js';
import { errorLine } from '../rpc/protocol.js';
import { type Context, Finding, Misuse } from './context.js';

interface CommandModule {
  register(program: Command, context: Context): void;
}

/** In the order of the help. */
const COMMANDS: Readonly<Record<string, () => Promise<CommandModule>>> = {
  up: () => import('./commands/up.js'),
  format: () => import('./commands/format.js'),
  mount: () => import('./commands/mount.js'),
  umount: () => import('./commands/umount.js'),
  drain: () => import('./commands/drain.js'),
  warmup: () => import('./commands/warmup.js'),
  status: () => import('./commands/status.js'),
  stats: () => import('./commands/stats.js'),
  fsck: () => import('./commands/fsck.js'),
  gc: () => import('./commands/gc.js'),
  scrub: () => import('./commands/scrub.js'),
  lease: () => import('./commands/lease.js'),
  switch: () => import('./commands/switch.js'),
};

export async function run(argv: readonly string[], context: Context): Promise<number> {
  const program = await programOf(argv, context);
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    return report(error, argv, context, program);
  }
}

/** A command that is named is loaded alone: what all of them import takes longer than most of them. */
async function programOf([name = '']: readonly string[], context: Context): Promise<Command> {
  const program = new Command('penstock')
    .description('a userspace storage and networking data plane for Linux hosts')
    .version(VERSION)
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => context.stdout.write(text),
      // Errors come out of run() as one line; commander's own text is only used for help.
      writeErr: (text) => (text.startsWith('error:') ? true : context.stderr.write(text)),
    });
  const named = Object.hasOwn(COMMANDS, name) ? [COMMANDS[name]!] : Object.values(COMMANDS);
  for (const { register } of await Promise.all(named.map((load) => load()))) register(program, context);
  return program;
}

function report(error: unknown, argv: readonly string[], context: Context, program: Command): number {
  if (error instanceof Finding) return 1;
  if (error instanceof CommanderError) {
    // `penstock` alone shows the help, as an error; --help and --version are none.
    if (error.exitCode === 0) return 0;
    if (error.code !== 'commander.help') {
      const message = error.message
        .replace(/^error: /, '')
        .split('\n')
        .join(' ');
      const line = `${message}; see "penstock ${helpTopic(argv, program)}--help"`;
      if (argv.includes('--json')) tellScript(context, new Misuse(line));
      context.stderr.write(`penstock: ${line}\n`);
    }
    return 2;
  }
  if (argv.includes('--json')) tellScript(context, error);
  const { message, code } = error as { message?: unknown; code?: unknown };
  context.stderr.write(`penstock: ${typeof message === 'string' ? message : String(error)}\n`);
  return error instanceof Misuse || code === 'CONFIG' ? 2 : 1;
}

function tellScript(context: Context, error: unknown): void {
  context.stdout.write(`${JSON.stringify(errorLine(error))}\n`);
}

function helpTopic(argv: readonly string[], program: Command): string {
  const known = program.commands.some((command) => command.name() === argv[0]);
  return known ? `${argv[0]} ` : '';
}
