import { spawn } from 'node:child_process';
import { PgError } from '../../mdm/error.ts';

const PACKAGE: Record<string, string> = { ip: 'iproute2', nft: 'nftables', iptables: 'iptables' };

/**
 * Runs `ip`, `nft` or `iptables` with `input` on its stdin; resolves to its stdout. PgError('NETWORK_TOOL') when it is not installed, or
 * NETWORK with its words when it fails.
 */
export function networkCommand(program: 'ip' | 'nft' | 'iptables', args: string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: toolEnv });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') return reject(error);
      const name = PACKAGE[program] ?? program;
      reject(
        new PgError('NETWORK_TOOL', `'${program}' is needed for the network and is not installed`, {
          hint: `apt install ${name}   (or run without: --network host, --network none)`,
        }),
      );
    });
    child.on('close', (code) => {
      if (code === 0) resolve(out);
      else
        reject(new PgError('NETWORK', `${program} ${args.join(' ')}: ${(err || out).trim().split('\n').join('; ')}`));
    });
  });
}

const toolEnv = {
  ...process.env,
  PATH: `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`,
};
