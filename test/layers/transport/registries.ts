import { join } from 'node:path';
import type { SourceOptions } from '../../../layers/transport/source.ts';
import {
  havePrograms,
  makeTempDir,
  removeTempDir,
  startRegistry,
  type Registry,
  type RegistryOptions,
} from './services.ts';

/** What a suite against real registries works with: a directory for each test, and registries that end with the test. */
export interface Registries {
  readonly dir: string;
  /** Nothing of this machine's configuration takes part. */
  environment(more?: Record<string, string>): SourceOptions;
  start(options?: RegistryOptions): Promise<Registry>;
}

/** To be called in a `describe`: sets up and takes down around each test, skips all of them when a program is missing. */
export function useRegistries(): Registries {
  let dir = '';
  const registries: Registry[] = [];
  before(function () {
    if (!havePrograms('docker-registry', 'skopeo', 'openssl', 'htpasswd')) this.skip();
  });
  beforeEach(() => {
    dir = makeTempDir();
  });
  afterEach(async () => {
    for (const registry of registries.splice(0)) await registry.stop();
    removeTempDir(dir);
  });
  return {
    get dir() {
      return dir;
    },
    environment: (more = {}) => ({
      env: { HOME: dir, XDG_RUNTIME_DIR: join(dir, 'run'), PATH: `${dir}/bin:${process.env['PATH']}`, ...more },
    }),
    async start(options = {}) {
      const registry = await startRegistry(dir, options);
      registries.push(registry);
      return registry;
    },
  };
}
