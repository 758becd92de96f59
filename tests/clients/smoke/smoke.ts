// The generated TypeScript client on a service: who calls, submit, read, list, cancel, and an error with its document.
import { AccessApi, Configuration, JobsApi, ResponseError, type Spec } from "./client";

declare const process: { env: Record<string, string | undefined>; exit(status: number): never };

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

async function main(): Promise<void> {
  const configuration = new Configuration({
    basePath: process.env["CALIBRL_API_URL"],
    accessToken: process.env["CALIBRL_API_KEY"],
  });
  const jobs = new JobsApi(configuration);
  check((await new AccessApi(configuration).readMe()).admin, "the key is an admin's");
  const spec: Spec = {
    kind: "train",
    name: "generated-typescript",
    model: { builtin: "tiny-vlm" },
    data: { builtin: "digits", split: "train" },
    algorithm: { type: "grpo" },
    rewards: [{ type: "math" }],
    steps: 2,
    priority: "low",
  };
  const job = await jobs.submitJob({ spec });
  check((await jobs.readJob({ jobId: job.id })).name === "generated-typescript", "the name is that of the spec");
  check((await jobs.listJobs({ limit: 10 })).data.some((one) => one.id === job.id), "the job is listed");
  check((await jobs.cancelJob({ jobId: job.id })).status.startsWith("cancel"), "the job is cancelled");
  try {
    await jobs.readJob({ jobId: "00000000-0000-0000-0000-000000000000" });
    check(false, "an unknown job was found");
  } catch (error) {
    if (!(error instanceof ResponseError)) throw error;
    check((await error.response.json()).detail.startsWith("There is no job"), "the error has its document");
  }
  console.log("6 calls, as expected");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
