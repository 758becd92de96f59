import io.calibrl.ApiClient;
import io.calibrl.ApiException;
import io.calibrl.api.AccessApi;
import io.calibrl.api.JobsApi;
import io.calibrl.model.AnyModel;
import io.calibrl.model.AnyReward;
import io.calibrl.model.BuiltinModel;
import io.calibrl.model.Job;
import io.calibrl.model.MathReward;
import io.calibrl.model.Spec;
import io.calibrl.model.TrainSpec;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** The generated Java client on a service: who calls, submit, read, list, cancel, and an error with its document. */
public class Smoke {
  private static void check(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }

  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(System.getenv("CALIBRL_API_URL"));
    String key = System.getenv("CALIBRL_API_KEY");
    client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + key));
    JobsApi jobs = new JobsApi(client);
    check(new AccessApi(client).readMe().getAdmin(), "the key is an admin's");
    TrainSpec spec =
        new TrainSpec()
            .kind(TrainSpec.KindEnum.TRAIN)
            .name("generated-java")
            .model(new AnyModel(new BuiltinModel().builtin(BuiltinModel.BuiltinEnum.TINY_VLM)))
            .data(Map.of("builtin", "digits", "split", "train"))
            .rewards(List.of(new AnyReward(new MathReward().type(MathReward.TypeEnum.MATH))))
            .steps(2);
    Job job = jobs.submitJob(new Spec(spec), null);
    check(jobs.readJob(job.getId()).getName().equals("generated-java"), "the name is that of the spec");
    check(jobs.cancelJob(job.getId(), null).getStatus().toString().startsWith("cancel"), "the job is cancelled");
    try {
      jobs.readJob(new UUID(0, 0));
      check(false, "an unknown job was found");
    } catch (ApiException error) {
      check(error.getCode() == 404 && error.getResponseBody().contains("There is no job"), "the error has its document");
    }
    System.out.println("5 calls, as expected");
  }
}
