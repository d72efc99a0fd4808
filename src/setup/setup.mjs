// The set-up that `npm start` and `npm test` run first. Plain Node without dependencies, since it is what installs them.
//
//   system packages ─> npm dependencies ─> native dependencies ─> addon ─> TypeScript
//
// Every step is skipped when it is current, so that a second run takes well under a second. `--test` adds what only the
// tests need.
const NODE_MAJOR_MIN = 20;

function unsuitable() {
  if (process.platform !== 'linux') return `Penstock runs on Linux, this is ${process.platform}`;
  if (Number.parseInt(process.versions.node, 10) < NODE_MAJOR_MIN) {
    return `Node ${NODE_MAJOR_MIN} or newer is needed, this is ${process.version}; see https://nodejs.org/en/download`;
  }
  return undefined;
}

// The steps are imported only after that check: an old Node could not even load them.
async function setup(test) {
  const { systemPackages } = await import('./system-packages.mjs');
  const { addon, dependencyAddons, npmDependencies, typescript } = await import('./steps.mjs');
  const context = { test, say: (step) => process.stdout.write(`setup: ${step}\n`) };
  for (const step of [systemPackages, npmDependencies, dependencyAddons, addon, typescript])
    await step(context);
}

function fail(message) {
  process.stderr.write(`setup: ${message}\n`);
  process.exitCode = 1;
}

const reason = unsuitable();
if (reason !== undefined) fail(reason);
else {
  try {
    await setup(process.argv.includes('--test'));
  } catch (error) {
    if (error.name !== 'SetupFailure') throw error;
    fail(error.message);
  }
}
