import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { appendedLength, BLOCK_BYTES, contentOf, lengthOf, type Word } from './acknowledged-writer.ts';

/** What is known of the files from the writer's words: what was acknowledged, and what was being done when it was killed. */
export class Knowledge {
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
      v === undefined || got === undefined ? v === got : got.equals(contentOf(path, v, lengthOf(path, v)));
    const [, kind, touched, next] = this.underWay.get(path.split('/')[0]!) ?? [];
    if (matches(version)) return;
    assert.ok(touched === path, `${path} is not as of version ${version}`);
    const now = kind === 'put' ? next : undefined;
    assert.ok(matches(now), `${path} is neither of version ${version} nor as '${kind}' ${next} makes it`);
    this.files.set(path, now);
  }
}
