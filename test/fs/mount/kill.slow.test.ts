import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startDetachedMount, stopDetachedMount } from '../../../fs/detached.ts';
import { appendedLength, BLOCK_BYTES, contentOf, lengthOf, type Word } from './acknowledged-writer.ts';
import { Bench, needFuse } from './harness.ts';

const ROUNDS = Number(process.env['PG_TEST_KILL_ROUNDS'] ?? 25);
const WRITER = fileURLToPath(new URL('acknowledged-writer.ts', import.meta.url));

/** What is known of the files from the writer's words: what was acknowledged, and what was being done when it was killed. */
class Knowledge {
  /** Version of each small file; undefined: it is not there. */
  private readonly files = new Map<string, number | undefined>();
  private readonly logs = new Map<string, { version: number; before: number }[]>();
  private readonly blocks = new Map<string, Map<number, number>>();
  private readonly underWay = new Map<string, Word>();
  last = 0;
  acknowledged = 0;

  hear(word: Word): void {
    const [what, kind, path, version, at] = word;
    this.last = Math.max(this.last, version);
    const loop = path.split('/')[0]!;
    if (what === 'begin') {
      this.underWay.set(loop, word);
      return;
    }
    this.underWay.delete(loop);
    this.acknowledged++;
    if (kind === 'put') this.files.set(path, version);
    else if (kind === 'remove') this.files.set(path, undefined);
    else if (kind === 'append') this.logs.set(path, [...(this.logs.get(path) ?? []), { version, before: at }]);
    else this.blocks.set(path, (this.blocks.get(path) ?? new Map<number, number>()).set(at, version));
  }

  /** Fails unless everything acknowledged is below `base`. What was under way may be there or not; the writer's next words start from that. */
  check(base: string): void {
    for (const [path, version] of this.files) this.checkFile(base, path, version);
    for (const [path, parts] of this.logs) {
      const bytes = readFileSync(join(base, path));
      for (const { version, before } of parts) {
        const length = appendedLength(version);
        assert.ok(
          bytes.subarray(before, before + length).equals(contentOf(path, version, length)),
          `${path} ${version}`,
        );
      }
    }
    for (const [path, blocks] of this.blocks) {
      const bytes = readFileSync(join(base, path));
      const [, , touchedPath, , touched] = this.underWay.get(path.split('/')[0]!) ?? [];
      for (const [block, version] of blocks) {
        if (touchedPath === path && touched === block) continue;
        const got = bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        assert.ok(got.equals(contentOf(path, version, BLOCK_BYTES)), `${path}, block ${block}, version ${version}`);
      }
      if (touchedPath === path) blocks.delete(touched!);
    }
    this.underWay.clear();
  }

  private checkFile(base: string, path: string, version: number | undefined): void {
    const got = existsSync(join(base, path)) ? readFileSync(join(base, path)) : undefined;
    const matches = (v: number | undefined): boolean =>
      v === undefined || got === undefined ? v === got : got.equals(contentOf(path, v, lengthOf(v)));
    const [, kind, touched, next] = this.underWay.get(path.split('/')[0]!) ?? [];
    if (matches(version)) return;
    assert.ok(touched === path, `${path} is not as of version ${version}`);
    const now = kind === 'put' ? next : undefined;
    assert.ok(matches(now), `${path} is neither of version ${version} nor as '${kind}' ${next} makes it`);
    this.files.set(path, now);
  }
}

describe('a mount whose server is killed under load', function () {
  this.timeout(600_000);
  let bench: Bench;

  before(function () {
    needFuse(this);
    bench = new Bench();
  });
  after(async () => {
    await stopDetachedMount(bench.roots, bench.at).catch(() => undefined);
    await bench?.clean();
  });

  const serverPid = (): number => {
    const dir = join(bench.roots.run, 'mounts');
    const name = readdirSync(dir).find((entry) => entry.endsWith('.json'))!;
    return (JSON.parse(readFileSync(join(dir, name), 'utf8')) as { pid: number }).pid;
  };

  const mount = (): Promise<void> =>
    startDetachedMount({
      roots: bench.roots,
      treeRoot: null,
      logDir: bench.logDir,
      mountPoint: bench.at,
      label: 'load',
    });

  it(`has everything that fsync acknowledged, ${ROUNDS} times in a row`, async () => {
    const known = new Knowledge();
    mkdirSync(bench.logDir, { recursive: true });
    for (let round = 0; round < ROUNDS; round++) {
      await mount();
      known.check(bench.at);
      const writer = spawn(process.execPath, [WRITER, bench.at, String(known.last + 1)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ended = new Promise((resolve) => writer.once('close', resolve));
      let text = '';
      const begun = new Promise<void>((resolve) => {
        writer.stdout.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
          resolve();
        });
      });
      await Promise.race([begun, ended]);
      await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 400));
      process.kill(serverPid(), 'SIGKILL');
      await ended;
      for (const line of text.split('\n').filter(Boolean)) known.hear(JSON.parse(line) as Word);
    }
    await mount();
    known.check(bench.at);
    assert.ok(known.acknowledged > ROUNDS, `only ${known.acknowledged} writes were acknowledged`);
    console.log(`      ${known.acknowledged} acknowledged writes`);
  });
});
