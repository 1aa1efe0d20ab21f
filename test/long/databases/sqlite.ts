import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { checkCount, type Database, exited, lastWords, rowsOf } from './database.ts';

const WRITER = fileURLToPath(new URL('sqlite-writer.ts', import.meta.url));

/** SQLite with a journal of this kind, written by a process of its own. */
export class Sqlite implements Database {
  readonly name: string;
  acknowledged = 0;
  failure: string | undefined;
  readonly #path: string;
  readonly #journal: string;
  #writer: ChildProcess | undefined;

  constructor(dir: string, journal: 'wal' | 'delete' | 'truncate' | 'persist') {
    this.name = `sqlite (${journal})`;
    mkdirSync(join(dir, journal), { recursive: true });
    this.#path = join(dir, journal, 'db');
    this.#journal = journal;
  }

  async create(): Promise<void> {
    const db = new DatabaseSync(this.#path);
    db.exec(`pragma synchronous = full; pragma journal_mode = ${this.#journal};
      create table t (number integer, row integer, v blob, primary key (number, row)); create index by_length on t (length(v));
      create table total (rows integer); insert into total values (0)`);
    db.close();
  }

  async startAndCheck(): Promise<void> {
    const db = new DatabaseSync(this.#path);
    try {
      assert.deepEqual(
        db
          .prepare('pragma integrity_check')
          .all()
          .map((row) => row['integrity_check']),
        ['ok'],
      );
      const groups = db
        .prepare('select number, count(*) n, min(length(v)) low, max(length(v)) high from t group by number')
        .all();
      for (const [i, { number, n, low, high }] of groups.entries()) {
        const length = ((i + 1) * 7919) % 6000;
        assert.deepEqual([number, n, low, high], [i + 1, rowsOf(i + 1), length, length], this.name);
      }
      const rows = groups.reduce((sum, { n }) => sum + Number(n), 0);
      assert.equal(db.prepare('select rows from total').get()!['rows'], rows);
      checkCount(this.name, groups.length, this.acknowledged);
      this.acknowledged = groups.length;
    } finally {
      db.close();
    }
  }

  load(): void {
    const writer = spawn(process.execPath, ['--no-warnings', WRITER, this.#path, String(this.acknowledged + 1)]);
    const words = lastWords(writer);
    this.#writer = writer;
    this.failure = undefined;
    writer.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.acknowledged += text.split('\n').length - 1;
    });
    writer.once('close', () => (this.failure = words() || 'its writer ended'));
  }

  async kill(): Promise<void> {
    const writer = this.#writer;
    if (writer === undefined) return;
    writer.kill('SIGKILL');
    if (writer.exitCode === null && writer.signalCode === null)
      await new Promise((resolve) => writer.once('close', resolve));
    await exited(writer);
  }
}
