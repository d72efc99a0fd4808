// penstock switch capture: packets of the switch as text, or as pcapng into a file or a pipe. The daemon copies them; the file
// is written here, with the rights of whoever asks.
import { type FileHandle, open } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { parse as parseYaml } from 'yaml';
import {
  type CaptureItem,
  type CaptureReport,
  packetFromItem,
  summaryFromReport,
} from '../../daemon/capture-items.js';
import type { CapturedPacket, CaptureSummary } from '../../network/capture.js';
import { describePacket } from '../../network/describe-packet.js';
import { PcapngWriter } from '../../network/pcapng.js';
import { call } from '../../rpc/client.js';
import { countArgument, secondsArgument } from '../arguments.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import { type Context, Misuse } from '../context.js';

interface CaptureCommandOptions extends CommonOptions {
  readonly port?: readonly string[];
  readonly drops?: boolean;
  readonly match?: string;
  readonly snaplen?: number;
  readonly count?: number;
  readonly seconds?: number;
  readonly write?: string;
}

export function registerCapture(plane: Command, context: Context, socket: () => string): void {
  defineCommand(plane, {
    usage: 'capture',
    description: 'show packets as they pass, or write them to a pcapng file, until Ctrl-C',
    example:
      'penstock switch capture --port vm1 --match "protocol: tcp, destinationPorts: 80"\n' +
      'penstock switch capture --drops\n' +
      'penstock switch capture -w - | tshark -r -',
  })
    .option('--port <names...>', 'where to look: ports, "*" for all; all, unless --drops alone is given')
    .option('--drops', 'dropped packets too, with the reason and the rule')
    .option(
      '--match <filter>',
      'only what a match of a rule such as "protocol: tcp, source: 10.0.0.0/8" means',
    )
    .option('--snaplen <bytes>', 'keep so many bytes of a packet', countArgument)
    .option('--count <packets>', 'end after so many', countArgument)
    .option('--seconds <seconds>', 'end after so long', secondsArgument)
    .option('-w, --write <file>', 'write pcapng to a file, "-" for standard output')
    .action(async (options: CaptureCommandOptions) => {
      const { port, match, drops, snaplen, count, seconds } = options;
      const parameters = {
        ...(port === undefined ? {} : { ports: port }),
        ...(match === undefined ? {} : { match: parseMatch(match) }),
        ...{ drops, snaplen, count, seconds },
      };
      await using output = await outputOf(context, options);
      const summary = await capture(context, socket(), parameters, output);
      await output.end(summary);
      context.stderr.write(`${summary.packets} packets captured, ${summary.lost} lost\n`);
    });
}

interface Output extends AsyncDisposable {
  packets(packets: readonly CapturedPacket[]): void | Promise<void>;
  end(summary: CaptureSummary): void | Promise<void>;
}

/** Runs until the daemon says that the capture has ended: of itself, or because a signal came. */
async function capture(
  context: Context,
  socket: string,
  parameters: object,
  output: Output,
): Promise<CaptureSummary> {
  let running: number | undefined;
  let stopped = false;
  const broken = new AbortController();
  const end = () => {
    stopped = true;
    if (running === undefined) return;
    call(socket, 'switch-capture-end', { capture: running }).catch((error: unknown) => broken.abort(error));
  };
  const forget = context.onStopSignal(end);
  try {
    const report = await call<CaptureReport>(socket, 'switch-capture', parameters, {
      signal: broken.signal,
      onItems: (items) => {
        const packets: CapturedPacket[] = [];
        for (const item of items as readonly CaptureItem[]) {
          if ('capture' in item) running = item.capture;
          else packets.push(packetFromItem(item));
        }
        if (packets.length > 0) return output.packets(packets);
        if (stopped) end();
        return undefined;
      },
    });
    return summaryFromReport(report);
  } finally {
    forget();
  }
}

async function outputOf(context: Context, options: CaptureCommandOptions): Promise<Output> {
  if (options.write === undefined) return new TextOutput(context, options);
  if (options.write === '-') return new PcapngOutput(options, (bytes) => context.writeBytes(bytes));
  let file: FileHandle;
  try {
    file = await open(resolve(context.directory, options.write), 'w');
  } catch (error) {
    throw new Misuse(`cannot write ${options.write}: ${(error as Error).message}`);
  }
  return new PcapngOutput(
    options,
    async (bytes) => void (await file.writeFile(bytes)),
    () => file.close(),
  );
}

class TextOutput implements Output {
  constructor(
    private readonly context: Context,
    private readonly options: CommonOptions,
  ) {}

  packets(packets: readonly CapturedPacket[]): void {
    for (const packet of packets) {
      const { timeNs, bytes, ...rest } = packet;
      const value = { timeNs: String(timeNs), ...rest, bytes: Buffer.from(bytes).toString('hex') };
      print(this.context, this.options, value, () => describePacket(packet));
    }
  }

  end(): void {}

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** A batch is one write. */
class PcapngOutput implements Output {
  readonly #writer: PcapngWriter;
  #blocks: Uint8Array[] = [];

  constructor(
    { snaplen = 0 }: CaptureCommandOptions,
    private readonly put: (bytes: Uint8Array) => Promise<void>,
    private readonly close: () => Promise<void> = async () => undefined,
  ) {
    this.#writer = new PcapngWriter({ write: (block) => this.#blocks.push(block) }, { snaplen });
  }

  packets(packets: readonly CapturedPacket[]): Promise<void> {
    for (const packet of packets) this.#writer.write(packet);
    return this.#flush();
  }

  end(summary: CaptureSummary): Promise<void> {
    this.#writer.end(summary);
    return this.#flush();
  }

  #flush(): Promise<void> {
    return this.put(Buffer.concat(this.#blocks.splice(0)));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The inside of a YAML mapping, with or without its braces. */
function parseMatch(text: string): unknown {
  const mapping = text.trim().startsWith('{') ? text : `{ ${text} }`;
  try {
    return parseYaml(mapping);
  } catch {
    throw new Misuse(
      `expected a match such as "protocol: tcp, destinationPorts: 80", got ${JSON.stringify(text)}`,
    );
  }
}
