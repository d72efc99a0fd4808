// The one logger. People at a terminal read lines, machines read JSON: the destination decides which.
import { openSync, writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { pino } from 'pino';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';
export const LOG_LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error', 'silent'];

export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  /** A logger whose lines carry `fields` too. */
  child(fields: Record<string, unknown>): Logger;
}

export interface LoggerOptions {
  readonly level?: LogLevel;
  /** A file that is appended to (JSON lines); absent: standard error. */
  readonly file?: string;
  /** Where lines go instead; for tests. */
  readonly write?: (line: string) => void;
  /** Lines for people instead of JSON; by default when the destination is a terminal. */
  readonly human?: boolean;
}

export function createLogger(options: LoggerOptions = {}): Logger {
  const fd = options.file === undefined ? 2 : openSync(options.file, 'a', 0o600);
  const human = options.human ?? (options.write === undefined && isatty(fd));
  const write = options.write ?? writerOf(fd);
  const destination = { write: human ? (line: string) => write(humanLine(line)) : write };
  return pino(
    {
      level: options.level ?? 'info',
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { error: pino.stdSerializers.err },
    },
    destination,
  );
}

export const silentLogger: Logger = createLogger({ level: 'silent', write: () => undefined });

/** Written at once, so that the last words before a crash are there. */
function writerOf(fd: number): (line: string) => void {
  return fd === 2 ? (line) => void process.stderr.write(line) : (line) => void writeSync(fd, line);
}

/** `12:30:01 warn  cannot reach the store  volume=default retries=3` */
function humanLine(json: string): string {
  const { level, time, msg, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const label = pino.levels.labels[Number(level)] ?? String(level);
  const clock = new Date(String(time)).toTimeString().slice(0, 8);
  const details = Object.entries(fields).map(([key, value]) => `${key}=${humanValue(value)}`);
  return `${clock} ${label.padEnd(5)} ${msg}${details.length > 0 ? `  ${details.join(' ')}` : ''}\n`;
}

function humanValue(value: unknown): string {
  if (value !== null && typeof value === 'object') {
    const { message } = value as { message?: unknown };
    return typeof message === 'string' ? JSON.stringify(message) : JSON.stringify(value);
  }
  const text = String(value);
  return /\s/.test(text) ? JSON.stringify(text) : text;
}
