// A sqlite process that commits row after row and is killed; what it had acknowledged must be there when it is opened
// again, and the database must be whole.
import { spawn } from 'node:child_process';
import { command } from '../support/command.js';

export type JournalMode = 'wal' | 'delete';

/** Answers how many commits were acknowledged before the kill. */
export async function commitUntilKilled(path: string, mode: JournalMode, afterMs: number): Promise<number> {
  const lines = [`PRAGMA journal_mode=${mode};`, 'PRAGMA synchronous=FULL;'];
  lines.push('CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB);');
  // Starts after the rows of an earlier life of the database.
  for (let row = 0; row < 20_000; row += 1) {
    lines.push('INSERT INTO t(body) VALUES (randomblob(700 + abs(random()) % 3000));');
    if (row % 50 === 49)
      lines.push('DELETE FROM t WHERE id % 11 = 3 AND id < (SELECT max(id) FROM t) - 100;');
    lines.push("SELECT 'acknowledged ' || max(id) FROM t;");
  }
  // Line-buffered: an acknowledgement counts once it is seen.
  const process = spawn('stdbuf', ['-oL', 'sqlite3', '-batch', path], { stdio: ['pipe', 'pipe', 'inherit'] });
  process.stdin.on('error', () => {});
  process.stdin.write(`${lines.join('\n')}\n`);
  let output = '';
  process.stdout.on('data', (text) => {
    output += text;
  });
  const closed = new Promise((resolve) => process.on('close', resolve));
  setTimeout(() => process.kill('SIGKILL'), afterMs);
  await closed;
  return Number(
    output
      .match(/acknowledged \d+\n/g)
      ?.at(-1)
      ?.slice('acknowledged '.length) ?? 0,
  );
}

/** Opens the database again: `ok` and the highest row, or what integrity_check found. */
export async function reopen(path: string): Promise<{ verdict: string; highest: number }> {
  const output = await command('sqlite3', ['-batch', path, 'PRAGMA integrity_check; SELECT max(id) FROM t;']);
  const [verdict = '', highest = '0'] = output.trim().split('\n');
  return { verdict, highest: Number(highest) };
}
