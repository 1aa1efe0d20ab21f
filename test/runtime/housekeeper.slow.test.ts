import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { imageArchive } from '../../examples/images/build.ts';
import { openStore, type Store } from '../../store/store.ts';

const PG = join(dirname(fileURLToPath(import.meta.url)), '../../bin/pg');

describe('the housekeeper', function () {
  this.timeout(120_000);
  let root: string;
  beforeEach(() => {
    root = mkdtempSync('/var/tmp/pg-test-');
  });
  afterEach(async () => {
    await until(() => !existsSync(join(root, 'run/housekeeper.pid')), 'it ends by itself');
    rmSync(root, { recursive: true, force: true });
  });

  const pg = (args: string[], housekeeping = 'auto'): string =>
    execFileSync(PG, args, { env: { ...process.env, PG_ROOT: root, PG_HOUSEKEEPING: housekeeping }, encoding: 'utf8' });
  const bring = (housekeeping?: string): string =>
    pg(['import', '-q', `oci-archive:${imageArchive('busybox')}`], housekeeping).trim();

  async function until(condition: () => boolean, what: string): Promise<void> {
    for (const deadline = Date.now() + 60_000; !condition(); await new Promise((resolve) => setTimeout(resolve, 100)))
      assert.ok(Date.now() < deadline, what);
  }

  async function withStore<T>(look: (store: Store) => T): Promise<T> {
    const store = openStore({ data: root, run: join(root, 'run'), config: join(root, 'etc') });
    try {
      return look(store);
    } finally {
      await store.close();
    }
  }

  it('compresses what was imported and removes what was removed, and ends', async () => {
    const id = bring();
    const pid = join(root, 'run/housekeeper.pid');
    await until(() => existsSync(pid), 'it begins');
    assert.equal(
      readFileSync(`/proc/${readFileSync(pid, 'utf8').split(' ')[0]}/stat`, 'utf8')
        .split(') ')[1]!
        .split(' ')[16],
      '19',
    );
    await until(() => !existsSync(pid), 'it ends');
    const { diskBytes, contents } = await withStore((store) => store.usage());
    assert.ok(contents > 0 && diskBytes < 1_300_000, `${diskBytes} bytes`);
    pg(['rmi', id]);
    await until(() => existsSync(pid), 'it begins again');
    await until(() => !existsSync(pid), 'it ends again');
    assert.equal((await withStore((store) => store.usage())).sectors, 0);
  });

  it('makes way for pg gc, which does all of it', () => {
    bring();
    const said = pg(['gc']);
    assert.match(said, /^Removed 0 contents/);
    assert.match(said, /Compressed \d+ sectors? from/);
    assert.doesNotMatch(pg(['gc']), /Compressed/);
  });

  it('does not come where the settings say so; with compress = "fast" there is nothing left for it to do', async () => {
    mkdirSync(join(root, 'etc'), { recursive: true });
    writeFileSync(join(root, 'etc/config.toml'), 'housekeeping = "off"\ncompress = "fast"\n');
    bring();
    assert.ok(!existsSync(join(root, 'run/housekeeper.wanted')));
    assert.ok((await withStore((store) => store.usage())).diskBytes < 1_300_000);
    assert.doesNotMatch(pg(['gc']), /Compressed/);
    writeFileSync(join(root, 'etc/config.toml'), 'compress = "sometimes"\n');
    assert.throws(() => pg(['gc']), /compress is 'idle', 'fast' or 'off'/);
  });
});
