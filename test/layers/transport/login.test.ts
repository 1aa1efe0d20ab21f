/** Logging in and out, with a real registry, read back by skopeo and podman. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { registryHost } from '../../../layers/registry/login.ts';
import { smallImage, writeLayout } from './samples.ts';
import { useRegistries } from './registries.ts';
import { havePrograms, run } from './services.ts';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '../../..');
const PG = process.env['PG_TEST_BIN'] ?? join(HOME, 'bin/pg');

describe('pg login and logout', function () {
  const registries = useRegistries();
  const { environment, start } = registries;
  const user = { name: 'ann', password: 'pa:ss wörd' };
  let dir: string;
  beforeEach(() => {
    dir = registries.dir;
  });

  const pg = (
    input: string,
    more: Record<string, string>,
    ...args: string[]
  ): Promise<{ code: number; text: string }> =>
    new Promise((resolve) => {
      const child = execFile(PG, args, { env: { ...environment(more).env } as NodeJS.ProcessEnv }, (error, out, err) =>
        resolve({ code: error === null ? 0 : Number(error.code), text: out + err }),
      );
      child.stdin!.end(input);
    });

  it('keep what the registry takes, where podman and skopeo find it', async function () {
    if (!existsSync(join(HOME, 'dist/cli/main.js')) || !havePrograms('podman')) return this.skip();
    const { host } = await start({ user });
    const file = join(dir, 'auth.json');
    const login = ['login', '-u', user.name, '--password-stdin', '--authfile', file, host];
    const wrong = await pg('wrong\n', {}, ...login);
    assert.equal(wrong.code, 125);
    assert.match(wrong.text, /does not take this name and password/);
    assert.ok(!wrong.text.includes('wrong'));
    assert.ok(!existsSync(file));

    writeFileSync(file, JSON.stringify({ auths: { 'other.example': { auth: 'eDp5' } }, more: [1] }));
    const right = await pg(`${user.password}\n`, {}, ...login);
    assert.deepEqual([right.code, right.text], [0, `logged in to ${host}; kept in ${file}\n`]);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal((await pg('', {}, 'login', '--get-login', '--authfile', file, host)).text, 'ann\n');
    assert.equal(run('podman', 'login', '--get-login', '--authfile', file, host), 'ann\n');
    writeLayout(join(dir, 'in'), await smallImage(), 'x');
    const to = ['--dest-tls-verify=false', '--authfile', file, `oci:${dir}/in:x`, `docker://${host}/a:1`];
    run('skopeo', '--insecure-policy', 'copy', '-q', ...to);

    const out = await pg('', {}, 'logout', '--authfile', file, host);
    assert.deepEqual([out.code, out.text], [0, `logged out of ${host}; removed from ${file}\n`]);
    assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), {
      auths: { 'other.example': { auth: 'eDp5' } },
      more: [1],
    });
    const again = await pg('', {}, 'logout', '--authfile', file, host);
    assert.deepEqual([again.code, again.text], [125, `pg: not logged in to ${host}\n`]);
  });

  it('leave it to the helper that a file names', async function () {
    if (!existsSync(join(HOME, 'dist/cli/main.js'))) return this.skip();
    const { host } = await start({ user });
    mkdirSync(join(dir, 'bin'));
    const helper = join(dir, 'bin/docker-credential-test');
    writeFileSync(
      helper,
      `#!/bin/sh
case $1 in
  store) cat > ${dir}/kept;;
  erase) [ -e ${dir}/kept ] || { echo credentials not found; exit 1; }; rm ${dir}/kept;;
esac
`,
    );
    chmodSync(helper, 0o755);
    const file = join(dir, 'auth.json');
    writeFileSync(file, JSON.stringify({ credHelpers: { [host]: 'test' } }));
    const env = { REGISTRY_AUTH_FILE: file };
    const login = await pg(user.password, env, 'login', '-u', user.name, '--password-stdin', host);
    assert.deepEqual([login.code, login.text], [0, `logged in to ${host}; kept in docker-credential-test\n`]);
    assert.deepEqual(JSON.parse(readFileSync(join(dir, 'kept'), 'utf8')), {
      ServerURL: host,
      Username: user.name,
      Secret: user.password,
    });
    assert.match((await pg('', env, 'logout', host)).text, /removed from docker-credential-test/);
    assert.equal((await pg('', env, 'logout', host)).code, 125);
  });

  it('know what a registry is called', () => {
    for (const [text, host] of [
      [undefined, 'docker.io'],
      ['https://index.docker.io/v1/', 'docker.io'],
      ['https://quay.io/', 'quay.io'],
      ['localhost:5000', 'localhost:5000'],
    ] as const)
      assert.equal(registryHost(text), host);
    assert.throws(() => registryHost('quay.io/team'), /is not a registry/);
  });
});
