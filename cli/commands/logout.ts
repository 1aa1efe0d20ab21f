import { Args } from '@oclif/core';
import { logout, registryHost } from '../../layers/registry/login.ts';
import { PgCommand } from '../base.ts';
import { authEnvironment, authFileFlag } from './login.ts';

export default class Logout extends PgCommand {
  static override summary = 'Forget the login to a registry.';
  static override examples = ['<%= config.bin %> logout registry.example.com'];
  static override flags = { authfile: authFileFlag };
  static override args = {
    registry: Args.string({ description: 'HOST or HOST:PORT (default: Docker Hub)' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Logout);
    const host = registryHost(args.registry);
    const from = await logout(host, authEnvironment(flags.authfile));
    process.stderr.write(`logged out of ${host}; removed from ${from}\n`);
  }
}
