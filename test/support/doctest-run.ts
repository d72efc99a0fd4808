// Runs one doctest binary once and tells the outcome of each of its test cases, so that vitest can show them one by one.
// When the program dies half-way (a sanitizer stopped it) the cases without a result fail with the end of its output.
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sanitizedLauncher } from './native-build.js';

const TAIL_LINES = 60;

export interface CaseResult {
  readonly name: string;
  readonly passed: boolean;
  readonly details: string;
}

export interface DoctestOutcome {
  readonly cases: readonly CaseResult[];
  /** The exit code, or the signal that ended it. */
  readonly exit: number | string;
  readonly output: string;
}

export async function listCases(binary: string): Promise<string[]> {
  const listed = await launch(binary, ['--list-test-cases', '--no-version', '--no-colors']);
  if (listed.exit !== 0) throw new Error(`${binary} --list-test-cases failed:\n${listed.output}`);
  return listed.output.split('\n').filter((line) => line !== '' && !/^(\[doctest\]|=+$)/.test(line));
}

export async function runDoctest(binary: string): Promise<DoctestOutcome> {
  const scratch = await mkdtemp(join(tmpdir(), 'penstock-doctest-'));
  try {
    const report = join(scratch, 'report.xml');
    const { exit, output } = await launch(binary, ['--reporters=xml', `--out=${report}`]);
    const xml = await readFile(report, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return '';
      throw error;
    });
    return {
      cases: parseReport(xml),
      exit,
      output: output.trimEnd().split('\n').slice(-TAIL_LINES).join('\n'),
    };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

export function parseReport(xml: string): CaseResult[] {
  const cases: CaseResult[] = [];
  for (const [, attributes = '', body = ''] of xml.matchAll(
    /<TestCase ((?:[^">]|"[^"]*")*)>(.*?)<\/TestCase>/gs,
  )) {
    const name = unescapeXml(/(?:^|\s)name="([^"]*)"/.exec(attributes)?.[1] ?? '');
    const overall = /<OverallResultsAsserts ([^>]*)\/>/.exec(body)?.[1] ?? '';
    const failures = /failures="(\d+)"/.exec(overall)?.[1];
    const passed = /test_case_success="([^"]*)"/.exec(overall)?.[1] ?? String(failures === '0');
    const details = [...body.matchAll(/<(Expression|Message|Exception)\b.*?<\/\1>/gs)].map(
      (match) => match[0],
    );
    cases.push({ name, passed: passed === 'true', details: unescapeXml(details.join('\n')) });
  }
  return cases;
}

function unescapeXml(text: string): string {
  const entities: Record<string, string> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' };
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (_, entity: string) => entities[entity]!);
}

async function launch(
  binary: string,
  argv: readonly string[],
): Promise<{ exit: number | string; output: string }> {
  const [program, ...before] = [...sanitizedLauncher()];
  const child = spawn(program!, [...before, binary, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ exit: signal ?? code ?? 'unknown', output }));
  });
}
