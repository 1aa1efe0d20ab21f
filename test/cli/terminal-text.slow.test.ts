import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { digestOf } from '../../layers/transport/digest.ts';
import { writeLayout } from '../layers/listing.ts';
import { layerOf, tarBytes } from '../layers/tar-builder.ts';
import { descriptor, json, sampleImage } from '../layers/transport/samples.ts';

const PG = join(import.meta.dirname, '../../bin/pg');
const EVIL = '\x1b]0;owned\x07\x1b[2J\x9b31m\u202ekcab';
/** What a terminal obeys, in UTF-8: C0 but for line feed and tab, DEL, C1, marks of direction. */
const OBEYED = /[\p{Cf}]|(?![\n\t])\p{Cc}/u;

/** An image whose every word tries to get at the terminal of who looks at it. */
describe('what images say', () => {
  let dir: string;
  const pg = (...args: string[]): string => {
    const { stdout, stderr } = spawnSync(PG, args, {
      encoding: 'utf8',
      env: { ...process.env, PG_ROOT: join(dir, 'pg'), PG_DEBUG: '1' },
    });
    return stdout + stderr;
  };

  before(async () => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    const name = Buffer.from(EVIL.replaceAll('/', '')).toString('latin1');
    const layer = layerOf(
      tarBytes([
        { name: 'x', longName: name, data: 'x' },
        { name: 'l', type: '2', linkName: name },
      ]),
    );
    const image = sampleImage([layer]);
    const config = json({
      ...(JSON.parse(image.config.toString()) as object),
      author: EVIL,
      config: { Labels: { [EVIL]: EVIL }, Env: [`A=${EVIL}`], Cmd: [EVIL], __proto__: { x: 1 } },
      history: [{ created_by: EVIL, comment: EVIL }],
    });
    const manifest = json({
      ...(JSON.parse(image.manifest.toString()) as object),
      config: descriptor('application/vnd.oci.image.config.v1+json', config),
      annotations: { [EVIL]: EVIL },
    });
    const source = await writeLayout(join(dir, 'layout'), {
      ...image,
      config,
      configDigest: digestOf(config),
      manifest,
      digest: digestOf(manifest),
    });
    execFileSync(PG, ['import', '-q', '--name', 'evil', source], { env: { ...process.env, PG_ROOT: join(dir, 'pg') } });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  for (const args of [
    ['images', '--no-trunc'],
    ['images', '--format', 'json'],
    ['inspect', 'evil'],
    ['inspect', '--format', 'json', 'evil'],
    ['ls', '-l', 'evil:/'],
    ['find', 'evil:/'],
    ['diff', 'scratch', 'evil'],
    ['cat', `evil:/${EVIL}not-there`],
    ['import', `docker-archive:/nowhere/${EVIL}`],
    ['rmi', EVIL],
    [`no-such-command-${EVIL}`],
  ]) {
    it(`pg ${args[0]!.slice(0, 16)} ${args.slice(1, -1).join(' ')}: shown as it is written, not obeyed`, () => {
      const text = pg(...args);
      assert.ok(text.length > 0);
      assert.ok(!OBEYED.test(text), JSON.stringify(text));
    });
  }
});
