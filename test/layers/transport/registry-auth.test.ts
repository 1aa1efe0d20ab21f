/** Who may read: Docker's own registry with passwords, tokens and certificates. */
import assert from 'node:assert/strict';
import { createHash, createPrivateKey, sign, X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assertIsSample, collect, failure, readAll } from './checks.ts';
import { json, smallImage, writeLayout } from './samples.ts';
import { useRegistries } from './registries.ts';
import { makeCertificates, misbehaving, respond, run, runBeside } from './services.ts';

describe('credentials and certificates for a real registry', function () {
  const registries = useRegistries();
  const { environment, start } = registries;
  let dir: string;
  beforeEach(() => {
    dir = registries.dir;
  });

  it('basic authentication: auth files, helpers, stores', async () => {
    const user = { name: 'ann', password: 'pa:ss wörd' };
    const { host } = await start({ user });
    const image = await smallImage();
    writeLayout(join(dir, 'in'), image, 'x');
    run(
      'skopeo',
      '--insecure-policy',
      'copy',
      '-q',
      '--dest-tls-verify=false',
      '--dest-creds',
      `${user.name}:${user.password}`,
      `oci:${dir}/in:x`,
      `docker://${host}/a/b:1`,
    );
    const source = `docker://${host}/a/b:1`;
    const denied = await failure(() => readAll(source, environment()), 'ACCESS_DENIED');
    assert.match(denied.hint ?? '', /pg login 127\.0\.0\.1/);

    const auth = (password = user.password): string => Buffer.from(`${user.name}:${password}`).toString('base64');
    const file = join(dir, 'auth.json');
    const works = async (more: Record<string, string>): Promise<void> =>
      assertIsSample(await readAll(source, environment(more)), image);
    const write = (value: object): void => writeFileSync(file, JSON.stringify(value));
    // Exact host, repository before host, and Docker's URL spelling.
    for (const auths of [
      { [host]: { auth: auth() } },
      { [`${host}/a/b`]: { auth: auth() }, [host]: { auth: auth('wrong') } },
      { [`${host}/a`]: { auth: auth() }, [`${host}/c`]: { auth: auth('wrong') } },
      { [`https://${host}/v1/`]: { auth: auth() } },
      { [host]: { username: user.name, password: user.password } },
    ]) {
      write({ auths });
      await works({ REGISTRY_AUTH_FILE: file });
    }
    write({ auths: { [host]: { auth: auth('wrong') } } });
    const wrong = await failure(() => readAll(source, environment({ REGISTRY_AUTH_FILE: file })), 'ACCESS_DENIED');
    assert.ok(!JSON.stringify([wrong.message, wrong.stack, wrong.hint]).includes('wrong'));
    writeFileSync(file, '{"auths": secret');
    const broken = await failure(
      () => readAll(source, environment({ REGISTRY_AUTH_FILE: file })),
      'CREDENTIALS_INVALID',
    );
    assert.ok(!broken.message.includes('secret'));

    // The usual places.
    for (const place of ['run/containers/auth.json', '.config/containers/auth.json', '.docker/config.json']) {
      mkdirSync(join(dir, place, '..'), { recursive: true });
      writeFileSync(join(dir, place), JSON.stringify({ auths: { [host]: { auth: auth() } } }));
      await works({});
      writeFileSync(join(dir, place), '{}');
    }

    // Helpers: asked on stdin, for this host only.
    mkdirSync(join(dir, 'bin'));
    const helper = join(dir, 'bin/docker-credential-test');
    const secret = JSON.stringify({ ServerURL: host, Username: user.name, Secret: user.password });
    writeFileSync(
      helper,
      `#!/bin/sh
read -r server
echo "$1 $server" >> ${dir}/asked
[ "$server" = "${host}" ] || { echo credentials not found in native keychain; exit 1; }
cat <<'EOT'
${secret}
EOT
`,
    );
    chmodSync(helper, 0o755);
    for (const config of [
      { credHelpers: { [host]: 'test', 'example.com': 'absent' } },
      { credsStore: 'test', auths: { [host]: {} } },
    ]) {
      writeFileSync(join(dir, '.docker/config.json'), JSON.stringify(config));
      await works({});
    }
    assert.equal(readFileSync(join(dir, 'asked'), 'utf8'), `get ${host}\n`.repeat(2));
    writeFileSync(join(dir, '.docker/config.json'), JSON.stringify({ credsStore: 'not-here' }));
    const missing = await failure(() => readAll(source, environment()), 'CREDENTIAL_HELPER_FAILED');
    assert.match(missing.message, /docker-credential-not-here/);
  });

  it('https: only with the right authority; certs.d; insecure', async () => {
    const tls = makeCertificates(dir);
    const { host } = await start({ tls });
    const image = await smallImage();
    writeLayout(join(dir, 'in'), image, 'x');
    run(
      'skopeo',
      '--insecure-policy',
      'copy',
      '-q',
      '--dest-tls-verify=false',
      `oci:${dir}/in:x`,
      `docker://${host}/app:1`,
    );
    const error = await failure(() => readAll(`docker://${host}/app:1`, environment()), 'REGISTRY_UNREACHABLE');
    assert.match(error.hint ?? '', /certs\.d/);
    const conf = join(dir, 'insecure.conf');
    writeFileSync(conf, `[[registry]]\nlocation = "${host}"\ninsecure = true\n`);
    assertIsSample(await readAll(`docker://${host}/app:1`, environment({ CONTAINERS_REGISTRIES_CONF: conf })), image);
    const certs = join(dir, '.config/containers/certs.d', host);
    mkdirSync(certs, { recursive: true });
    writeFileSync(join(certs, 'ca.crt'), readFileSync(tls.ca));
    assertIsSample(await readAll(`docker://${host}/app:1`, environment()), image);
    writeFileSync(join(certs, 'ca.crt'), 'not PEM');
    await failure(() => readAll(`docker://${host}/app:1`, environment()), 'CERTIFICATE_INVALID');
  });

  it('bearer tokens, anonymous and with a password or a refresh token', async () => {
    const { ca, key } = tokenAuthority(dir);
    const asked: { url: URL; method: string; authorization: string | undefined; body: string }[] = [];
    const tokens = await misbehaving(async (request, response) => {
      const body = (await collect(request)).toString();
      const url = new URL(request.url!, 'http://x');
      asked.push({ url, method: request.method!, authorization: request.headers.authorization, body });
      const fields = request.method === 'POST' ? new URLSearchParams(body) : url.searchParams;
      const allowed =
        fields.get('refresh_token') === 'refresh me' ||
        request.headers.authorization === `Basic ${Buffer.from('ann:secret').toString('base64')}`;
      const isPublic = fields.get('scope')?.startsWith('repository:public/');
      if (request.headers.authorization && !allowed) return respond(response, 401, json({}));
      const token = signToken(
        ca,
        key,
        fields.get('service')!,
        fields.get('scope')!,
        allowed || isPublic ? ['pull', 'push'] : [],
      );
      return respond(
        response,
        200,
        json(request.method === 'POST' ? { access_token: token } : { token, expires_in: 300 }),
      );
    });
    const { host } = await start({
      token: { realm: `http://${tokens.host}/token`, service: 'the registry', issuer: 'pg test', certificate: ca },
    });
    const image = await smallImage();
    writeLayout(join(dir, 'in'), image, 'x');
    for (const name of ['public/app', 'private/app']) {
      await runBeside(
        'skopeo',
        '--insecure-policy',
        'copy',
        '-q',
        '--dest-tls-verify=false',
        '--dest-creds',
        'ann:secret',
        `oci:${dir}/in:x`,
        `docker://${host}/${name}:1`,
      );
    }
    asked.length = 0;
    assertIsSample(await readAll(`docker://${host}/public/app:1`, environment()), image);
    assert.equal(asked.length, 1, 'one token serves the manifest, the config and all layers');
    assert.equal(asked[0]?.url.searchParams.get('service'), 'the registry');
    assert.equal(asked[0]?.url.searchParams.get('scope'), 'repository:public/app:pull');
    assert.equal(asked[0]?.authorization, undefined);

    await failure(() => readAll(`docker://${host}/private/app:1`, environment()), 'ACCESS_DENIED');
    const file = join(dir, 'auth.json');
    const env = environment({ REGISTRY_AUTH_FILE: file });
    writeFileSync(file, JSON.stringify({ auths: { [host]: { auth: Buffer.from('ann:wrong').toString('base64') } } }));
    await failure(() => readAll(`docker://${host}/private/app:1`, env), 'ACCESS_DENIED');
    writeFileSync(file, JSON.stringify({ auths: { [host]: { auth: Buffer.from('ann:secret').toString('base64') } } }));
    assertIsSample(await readAll(`docker://${host}/private/app:1`, env), image);
    writeFileSync(file, JSON.stringify({ auths: { [host]: { identitytoken: 'refresh me' } } }));
    assertIsSample(await readAll(`docker://${host}/private/app:1`, env), image);
    assert.equal(asked.at(-1)?.method, 'POST');
    assert.ok(asked.at(-1)?.body.includes('grant_type=refresh_token'));
    await tokens.stop();
  });
});

function tokenAuthority(dir: string): { ca: string; key: string } {
  const [ca, key] = [join(dir, 'token.crt'), join(dir, 'token.key')];
  run(
    'openssl',
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=token',
    '-keyout',
    key,
    '-out',
    ca,
  );
  return { ca, key };
}

/**
 * A token as Docker's registry checks it: a JWT with the signer's certificate in its header (docs: registry token/jwt).
 */
function signToken(ca: string, key: string, service: string, scope: string, actions: string[]): string {
  const certificate = new X509Certificate(readFileSync(ca));
  const header = { typ: 'JWT', alg: 'RS256', x5c: [certificate.raw.toString('base64')] };
  const [type, name] = scope.split(':');
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: 'pg test',
    sub: '',
    aud: service,
    exp: now + 300,
    nbf: now - 10,
    iat: now,
    jti: createHash('sha256').update(scope).digest('hex'),
    access: [{ type, name, actions }],
  };
  const body = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${body}.${sign('RSA-SHA256', Buffer.from(body), createPrivateKey(readFileSync(key))).toString('base64url')}`;
}
