import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { checkCount, type Database, exited, killWithChildren, lastWords, rowsOf } from './database.ts';

const run = promisify(execFile);
const LIB = '/usr/lib/postgresql';
const START_MS = 60_000;

/** Directory of PostgreSQL's programs; undefined when it is not installed. */
export function postgresPrograms(): string | undefined {
  const version = existsSync(LIB) ? readdirSync(LIB).toSorted((a, b) => Number(b) - Number(a))[0] : undefined;
  return version === undefined || !existsSync(join(LIB, version, 'bin/postgres'))
    ? undefined
    : join(LIB, version, 'bin');
}

/** PostgreSQL with two clients, each of which writes its own transactions. */
export class Postgres implements Database {
  readonly name = 'postgres';
  failure: string | undefined;
  readonly #bin = postgresPrograms()!;
  readonly #dir: string;
  readonly #sockets: string;
  readonly #user: { uid: number; gid: number };
  readonly #acknowledged = [0, 0];
  #server: ChildProcess | undefined;
  #clients: ChildProcess[] = [];

  /** Data in `dir`, on the mount; sockets in `sockets`, outside. */
  constructor(dir: string, sockets: string) {
    const id = (flag: string): number => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
    this.#user = { uid: id('-u'), gid: id('-g') };
    this.#dir = join(dir, 'postgres');
    this.#sockets = sockets;
    for (const each of [this.#dir, sockets]) {
      mkdirSync(each, { recursive: true, mode: 0o700 });
      chownSync(each, this.#user.uid, this.#user.gid);
    }
  }

  get acknowledged(): number {
    return this.#acknowledged[0]! + this.#acknowledged[1]!;
  }

  async create(): Promise<void> {
    await this.#run('initdb', ['-D', this.#dir, '-A', 'trust', '--no-locale', '-E', 'UTF8']);
    await this.#start();
    await this.#query(`create table t (client int, number int, row int, v text, primary key (client, number, row));
      create index by_v on t (v); create table total (client int, rows int); insert into total values (0, 0), (1, 0); create extension amcheck`);
    await this.kill();
  }

  async startAndCheck(): Promise<void> {
    await this.#start();
    for (const client of [0, 1]) {
      const answer = await this
        .#query(`select count(distinct number), coalesce(max(number), 0), count(*), (select rows from total where client = ${client}),
        count(*) filter (where row >= 1 + number % 5 or length(v) <> 32 * (number % 60)) from t where client = ${client}`);
      const [found, last, rows, total, odd] = answer.trim().split('|').map(Number);
      let expected = 0;
      for (let number = 1; number <= found!; number++) expected += rowsOf(number);
      assert.deepEqual([last, rows, total, odd], [found, expected, expected, 0], this.name);
      checkCount(`${this.name}, client ${client}`, found!, this.#acknowledged[client]!);
      this.#acknowledged[client] = found!;
    }
    await this.#run('pg_amcheck', ['-h', this.#sockets, '-d', 'postgres', '--heapallindexed', '--parent-check']);
    await this.#run('pg_dump', ['-h', this.#sockets, '-f', '/dev/null', 'postgres']);
  }

  load(): void {
    this.failure = undefined;
    this.#clients = [0, 1].map((client) => this.#client(client));
  }

  async kill(): Promise<void> {
    const server = this.#server;
    for (const client of this.#clients) client.kill('SIGKILL');
    await Promise.all(this.#clients.map(exited));
    if (server !== undefined) await killWithChildren(server);
  }

  /** psql, which is given one transaction after the other and tells when each is committed. */
  #client(client: number): ChildProcess {
    const psql = spawn(
      join(this.#bin, 'psql'),
      ['-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', this.#sockets, 'postgres'],
      this.#user,
    );
    const words = lastWords(psql);
    psql.stdin.on('error', () => {});
    const send = (): void => {
      const number = this.#acknowledged[client]! + 1;
      const rows = Array.from(
        { length: rowsOf(number) },
        (_, row) => `(${client}, ${number}, ${row}, repeat(md5('${client} ${number} ${row}'), ${number % 60}))`,
      );
      psql.stdin.write(
        `begin; insert into t values ${rows.join(', ')}; update total set rows = rows + ${rows.length} where client = ${client}; commit;\n\\echo ${number}\n`,
      );
    };
    psql.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#acknowledged[client]! += text.split('\n').length - 1;
      send();
    });
    psql.once('close', () => (this.failure ??= words() || 'psql ended'));
    send();
    return psql;
  }

  async #start(): Promise<void> {
    const server = spawn(
      join(this.#bin, 'postgres'),
      [
        '-D',
        this.#dir,
        '-k',
        this.#sockets,
        '-c',
        'listen_addresses=',
        '-c',
        'shared_buffers=16MB',
        '-c',
        'max_wal_size=64MB',
      ],
      {
        ...this.#user,
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    const words = lastWords(server);
    this.#server = server;
    for (const deadline = performance.now() + START_MS; ; await sleep(50)) {
      assert.ok(server.exitCode === null && performance.now() < deadline, `postgres does not start:\n${words()}`);
      const ready = await run(join(this.#bin, 'pg_isready'), ['-q', '-h', this.#sockets]).then(
        () => true,
        () => false,
      );
      if (ready) return;
    }
  }

  async #query(sql: string): Promise<string> {
    return (await this.#run('psql', ['-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', this.#sockets, '-c', sql, 'postgres']))
      .stdout;
  }

  #run(program: string, args: string[]): Promise<{ stdout: string }> {
    return run(join(this.#bin, program), args, { ...this.#user, cwd: '/', maxBuffer: 1 << 26 });
  }
}
