import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { checkCount, type Database, killWithChildren, lastWords, rowsOf } from './database.ts';

const START_MS = 60_000;

/** redis whose append-only file is synced before every answer, and rewritten now and then. */
export class Redis implements Database {
  readonly name = 'redis';
  acknowledged = 0;
  failure: string | undefined;
  readonly #dir: string;
  readonly #socket: string;
  #server: ChildProcess | undefined;
  #writer: Socket | undefined;

  /** Data in `dir`, on the mount; its socket in `sockets`, outside. */
  constructor(dir: string, sockets: string) {
    this.#dir = join(dir, 'redis');
    this.#socket = join(sockets, 'redis.sock');
    mkdirSync(this.#dir, { recursive: true });
  }

  async create(): Promise<void> {
    await this.#start();
    await this.kill();
  }

  async startAndCheck(): Promise<void> {
    await this.#start();
    const found = Number((await this.#ask(['GET number']))[0]!.replace('$-1', '0'));
    checkCount(this.name, found, this.acknowledged);
    const numbers = Array.from({ length: found }, (_, i) => i + 1);
    const lengths = await this.#ask(numbers.map((number) => `LLEN rows${number}`));
    assert.deepEqual(
      lengths,
      numbers.map((number) => `:${rowsOf(number)}`),
      this.name,
    );
    assert.deepEqual(await this.#ask(['DBSIZE']), [`:${found === 0 ? 0 : found + 1}`]);
    this.acknowledged = found;
    await promisify(execFile)('redis-check-aof', [join(this.#dir, 'appendonlydir/appendonly.aof.manifest')]);
  }

  load(): void {
    this.failure = undefined;
    const writer = connect(this.#socket);
    this.#writer = writer;
    let lines = 0;
    let due = 0;
    const send = (): void => {
      const number = this.acknowledged + 1;
      const rows = Array.from(
        { length: rowsOf(number) },
        () => `RPUSH rows${number} ${'x'.repeat(1 + ((number * 7919) % 3000))}`,
      );
      const commands = ['MULTI', 'INCR number', ...rows, 'EXEC'];
      // An answer for each, and the array of the last one's.
      due = commands.length + 1 + rows.length;
      writer.write(`${commands.join('\r\n')}\r\n`);
    };
    writer.setEncoding('utf8').on('data', (text: string) => {
      if (/^-/m.test(text)) this.failure = text;
      lines += text.split('\n').length - 1;
      if (lines < due) return;
      lines = 0;
      this.acknowledged++;
      send();
    });
    writer.once('error', (error) => (this.failure ??= error.message));
    writer.once('close', () => (this.failure ??= 'redis hung up'));
    send();
  }

  async kill(): Promise<void> {
    this.#writer?.destroy();
    if (this.#server !== undefined) await killWithChildren(this.#server);
  }

  async #start(): Promise<void> {
    const options = {
      port: 0,
      unixsocket: this.#socket,
      dir: this.#dir,
      save: '',
      appendonly: 'yes',
      appendfsync: 'always',
      'auto-aof-rewrite-min-size': '1mb',
    };
    const server = spawn(
      'redis-server',
      Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]),
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    this.#server = server;
    const words = lastWords(server);
    let said = '';
    server.stdout.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)));
    for (const deadline = performance.now() + START_MS; ; await sleep(20)) {
      assert.ok(server.exitCode === null && performance.now() < deadline, `redis does not start:\n${said}${words()}`);
      const answer = await this.#ask(['PING']).catch(() => []);
      if (answer[0] === '+PONG') return;
    }
  }

  /** The answers, one line of each. */
  #ask(commands: string[]): Promise<string[]> {
    if (commands.length === 0) return Promise.resolve([]);
    return new Promise((resolve, reject) => {
      const socket = connect(this.#socket);
      let text = '';
      socket.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
        // A bulk string is a line with its length and one with itself.
        const lines = text
          .split('\r\n')
          .slice(0, -1)
          .filter((line) => !/^\$\d/.test(line));
        if (lines.length < commands.length) return;
        socket.destroy();
        resolve(lines);
      });
      socket.once('error', reject);
      socket.write(`${commands.join('\r\n')}\r\n`);
    });
  }
}
