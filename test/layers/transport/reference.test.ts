import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  familiarReference,
  familiarRepository,
  formatReference,
  parseImageName,
  parseReference,
  repositoryName,
} from '../../../layers/reference.ts';
import { isPgError } from '../../../mdm/error.ts';

const SHA = `sha256:${'a'.repeat(64)}`;

describe('image references', () => {
  // distribution/reference: normalize_test.go, reference_test.go.
  const GOOD: [text: string, full: string, familiar: string][] = [
    ['nginx', 'docker.io/library/nginx:latest', 'nginx:latest'],
    ['nginx:1.27', 'docker.io/library/nginx:1.27', 'nginx:1.27'],
    ['library/nginx', 'docker.io/library/nginx:latest', 'nginx:latest'],
    ['docker.io/nginx', 'docker.io/library/nginx:latest', 'nginx:latest'],
    ['index.docker.io/me/app', 'docker.io/me/app:latest', 'me/app:latest'],
    ['me/app', 'docker.io/me/app:latest', 'me/app:latest'],
    ['quay.io/me/app:v1', 'quay.io/me/app:v1', 'quay.io/me/app:v1'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['localhost:5000/a/b/c:x', 'localhost:5000/a/b/c:x', 'localhost:5000/a/b/c:x'],
    ['127.0.0.1:5000/app', '127.0.0.1:5000/app:latest', '127.0.0.1:5000/app:latest'],
    ['[::1]:5000/app', '[::1]:5000/app:latest', '[::1]:5000/app:latest'],
    ['[2001:db8::1]/app', '[2001:db8::1]/app:latest', '[2001:db8::1]/app:latest'],
    ['Example/app', 'Example/app:latest', 'Example/app:latest'],
    ['xn--n3h.com/app', 'xn--n3h.com/app:latest', 'xn--n3h.com/app:latest'],
    [`nginx@${SHA}`, `docker.io/library/nginx@${SHA}`, `nginx@${SHA}`],
    [`nginx:1@${SHA}`, `docker.io/library/nginx:1@${SHA}`, `nginx:1@${SHA}`],
    ['a--b/c__d/e.f', 'docker.io/a--b/c__d/e.f:latest', 'a--b/c__d/e.f:latest'],
    ['docker.io/library/a/b', 'docker.io/library/a/b:latest', 'library/a/b:latest'],
    ['docker.io/localhost/b', 'docker.io/localhost/b:latest', 'docker.io/localhost/b:latest'],
    [
      `${'a/'.repeat(122)}a:${'t'.repeat(128)}`,
      `docker.io/${'a/'.repeat(122)}a:${'t'.repeat(128)}`,
      `${'a/'.repeat(122)}a:${'t'.repeat(128)}`,
    ],
  ];
  for (const [text, full, familiar] of GOOD) {
    it(`reads ${text.slice(0, 60)}`, () => {
      const reference = parseImageName(text);
      assert.equal(formatReference(reference), full);
      assert.equal(familiarReference(reference), familiar);
      assert.deepEqual(parseImageName(full), reference);
      assert.deepEqual(parseImageName(familiar), reference);
    });
  }

  it('leaves a repository without tag alone', () => {
    const reference = parseReference('quay.io/me/app');
    assert.deepEqual(reference, { domain: 'quay.io', path: 'me/app' });
    assert.equal(repositoryName(parseReference('nginx:1')), 'docker.io/library/nginx');
    assert.equal(familiarRepository(parseReference('nginx:1')), 'nginx');
  });

  const BAD = [
    '',
    ':tag',
    '@sha256:x',
    'nginx:',
    'nginx:-x',
    `nginx:${'t'.repeat(129)}`,
    'Nginx',
    'me/App',
    'a//b',
    '/a',
    'a/',
    'a/../b',
    '-a',
    'a_-b',
    'a___b',
    'a..b/c/',
    'nginx@sha256:abc',
    `nginx@md5:${'a'.repeat(32)}`,
    `nginx@SHA256:${'a'.repeat(64)}`,
    `nginx@sha256:${'A'.repeat(64)}`,
    'a'.repeat(64).replace(/a/g, 'f'),
    `${'a/'.repeat(130)}a`,
    'host:port/app',
    'a b',
    'a\nb',
    'é',
    'docker://nginx',
    'https://quay.io/a',
    '[::1/app',
    'nginx:a:b',
    `a@${SHA}@${SHA}`,
  ];
  for (const text of BAD) {
    it(`refuses ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.throws(
        () => parseReference(text),
        (error) => isPgError(error, 'REFERENCE_INVALID') && error.hint !== undefined,
      );
    });
  }

  it('reads back what it writes, whatever it accepts', () => {
    const word = fc.stringMatching(/^[a-z0-9]{1,6}([._-][a-z0-9]{1,6})?$/);
    const host = fc.constantFrom(
      '',
      'localhost/',
      'quay.io/',
      'localhost:5000/',
      'docker.io/',
      'index.docker.io/',
      'library/',
      'Host/',
    );
    const tag = fc.constantFrom('', ':latest', ':V1.0-x', `@${SHA}`, `:a@${SHA}`);
    fc.assert(
      fc.property(host, fc.array(word, { minLength: 1, maxLength: 4 }), tag, (domain, path, suffix) => {
        const reference = parseReference(domain + path.join('/') + suffix);
        assert.deepEqual(parseReference(formatReference(reference)), reference);
        assert.deepEqual(parseReference(familiarReference(reference)), reference);
      }),
      { numRuns: 2000 },
    );
  });

  it('takes linear time on hostile names', () => {
    // A backtracking pattern would not come back from these.
    for (const text of [
      `${'a-'.repeat(100_000)}!`,
      'a'.repeat(200_000) + '!',
      `${'a_'.repeat(100_000)}`,
      `${'a.'.repeat(100_000)}:`,
    ]) {
      assert.throws(
        () => parseReference(text),
        (error) => isPgError(error, 'REFERENCE_INVALID'),
      );
    }
  });
});
