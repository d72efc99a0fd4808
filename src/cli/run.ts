// The command line as a function: arguments in, exit code out (0 done, 1 failed, 2 misused). An error is one line on standard
// error that says what to do; with --json it is a JSON value on standard output too.
import { Command, CommanderError } from 'commander';
import { VERSION } from '../daemon/daemon.js';
import { errorLine } from '../rpc/protocol.js';
import { register as drain } from './commands/drain.js';
import { register as format } from './commands/format.js';
import { register as fsck } from './commands/fsck.js';
import { register as gc } from './commands/gc.js';
import { register as lease } from './commands/lease.js';
import { register as mount } from './commands/mount.js';
import { register as scrub } from './commands/scrub.js';
import { register as stats } from './commands/stats.js';
import { register as status } from './commands/status.js';
import { register as switchCommand } from './commands/switch.js';
import { register as umount } from './commands/umount.js';
import { register as up } from './commands/up.js';
import { register as warmup } from './commands/warmup.js';
import { type Context, Finding, Misuse } from './context.js';

const COMMANDS = [
  up,
  format,
  mount,
  umount,
  drain,
  warmup,
  status,
  stats,
  fsck,
  gc,
  scrub,
  lease,
  switchCommand,
];

export async function run(argv: readonly string[], context: Context): Promise<number> {
  const program = programOf(context);
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    return report(error, argv, context, program);
  }
}

function programOf(context: Context): Command {
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
  for (const register of COMMANDS) register(program, context);
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
      context.stderr.write(`penstock: ${message}; see "penstock ${helpTopic(argv, program)}--help"\n`);
    }
    return 2;
  }
  if (argv.includes('--json')) context.stdout.write(`${JSON.stringify(errorLine(error))}\n`);
  const { message, code } = error as { message?: unknown; code?: unknown };
  context.stderr.write(`penstock: ${typeof message === 'string' ? message : String(error)}\n`);
  return error instanceof Misuse || code === 'CONFIG' ? 2 : 1;
}

function helpTopic(argv: readonly string[], program: Command): string {
  const known = program.commands.some((command) => command.name() === argv[0]);
  return known ? `${argv[0]} ` : '';
}
