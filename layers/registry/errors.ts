/** What registries answer when they do not give (distribution-spec, "Error Codes"), in words for people. */
import type { Dispatcher } from 'undici';
import { PgError } from '../../mdm/error.ts';
import { networkCode } from './retry.ts';
import { steady } from './steady.ts';

const ERROR_BYTES_MAX = 64 * 1024;

/** The error in an answer that is not a success. Reads its body. */
export async function registryError(answer: Dispatcher.ResponseData, host: string, what: string): Promise<PgError> {
  const detail = await readDetail(answer.body);
  const { statusCode } = answer;
  const said = detail === '' ? '' : `: ${detail}`;
  if (statusCode === 404) {
    return new PgError('IMAGE_NOT_FOUND', `the registry ${host} has no ${what}${said}`, { hint: 'check name and tag' });
  }
  if (statusCode === 401 || statusCode === 403) return accessDenied(host, what, detail);
  if (statusCode === 429) {
    return new PgError('RATE_LIMITED', `the registry ${host} lets us have no more for now${said}`, {
      hint: `wait a while; ${loginHint(host)}`,
    });
  }
  if (statusCode >= 500) {
    return new PgError('REGISTRY_UNAVAILABLE', `the registry ${host} fails on ${what} (${statusCode})${said}`, {
      hint: 'try again later',
    });
  }
  return new PgError('REGISTRY_MISBEHAVES', `the registry ${host} answers ${statusCode} for ${what}${said}`);
}

/** Refused for want of rights. Registries say so also of what does not exist. */
export function accessDenied(host: string, what: string, detail = ''): PgError {
  const said = detail === '' ? '' : `: ${detail}`;
  return new PgError(
    'ACCESS_DENIED',
    `the registry ${host} does not let us have ${what}, or has no such thing${said}`,
    {
      hint: loginHint(host),
    },
  );
}

/** The network, not the registry, failed. */
export function unreachable(host: string, what: string, cause: unknown): PgError {
  const code = networkCode(cause);
  const message = cause instanceof Error ? cause.message : String(cause);
  const isNotTls = /^(ERR_SSL_|EPROTO)/.test(code);
  let hint = 'check the network and the name of the registry, then try again';
  if (isCertificateError(code)) {
    const place = `/etc/containers/certs.d/${host}/ca.crt`;
    hint = `put the registry's CA certificate at ${place}, or set insecure = true in registries.conf`;
  } else if (isNotTls)
    hint = 'if the registry has no https, set insecure = true for it in /etc/containers/registries.conf';
  const why = code !== '' && !message.includes(code) ? `${message} (${code})` : message;
  return new PgError('REGISTRY_UNREACHABLE', `cannot get ${what} from ${host}: ${why}`, { hint, cause });
}

/** What to do when a registry does not let us in. */
export function loginHint(host: string): string {
  const name = host === 'registry-1.docker.io' ? 'docker.io' : host;
  return `check the image's name; if it is private, log in: pg login ${name}`;
}

/** Whether a network error's code (retry.ts) says that a certificate does not satisfy. */
export function isCertificateError(code: string): boolean {
  return /^(CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_CERT|HOSTNAME_)/.test(code);
}

async function readDetail(body: Dispatcher.ResponseData['body']): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of steady(body as AsyncIterable<Uint8Array>, 'an error')) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > ERROR_BYTES_MAX) break;
    }
    const json = JSON.parse(Buffer.concat(chunks).toString('utf8')) as {
      errors?: { code?: unknown; message?: unknown }[];
    };
    const first = json.errors?.[0];
    const text = [first?.code, first?.message].filter((part) => typeof part === 'string').join(' ');
    // It goes to a terminal.
    return text.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 300);
  } catch {
    return '';
  }
}
