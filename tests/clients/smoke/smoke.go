// The generated Go client on a service: who calls, submit, read, list, cancel, and an error with its document.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"calibrl"
)

func check(holds bool, what string, err error) {
	if err != nil || !holds {
		fmt.Println(what, err)
		os.Exit(1)
	}
}

func main() {
	configuration := calibrl.NewConfiguration()
	configuration.Servers = calibrl.ServerConfigurations{{URL: os.Getenv("CALIBRL_API_URL")}}
	configuration.AddDefaultHeader("Authorization", "Bearer "+os.Getenv("CALIBRL_API_KEY"))
	client, ctx := calibrl.NewAPIClient(configuration), context.Background()
	me, _, err := client.AccessAPI.ReadMe(ctx).Execute()
	check(err == nil && me.Admin, "the key is an admin's", err)
	model := calibrl.BuiltinModelAsAnyModel(calibrl.NewBuiltinModel("tiny-vlm"))
	digits := map[string]string{"builtin": "digits", "split": "train"}
	spec := calibrl.NewTrainSpec("generated-go", model, digits, "train")
	spec.SetSteps(2)
	job, _, err := client.JobsAPI.SubmitJob(ctx).Spec(calibrl.TrainSpecAsSpec(spec)).Execute()
	check(err == nil && job.Name == "generated-go", "the job is submitted", err)
	again, _, err := client.JobsAPI.ReadJob(ctx, job.Id).Execute()
	check(err == nil && again.Name == "generated-go", "the name is that of the spec", err)
	page, _, err := client.JobsAPI.ListJobs(ctx).Limit(10).Execute()
	found := false
	for _, one := range page.GetData() {
		found = found || one.Id == job.Id
	}
	check(found, "the job is listed", err)
	cancelled, _, err := client.JobsAPI.CancelJob(ctx, job.Id).Execute()
	check(err == nil && strings.HasPrefix(string(cancelled.Status), "cancel"), "the job is cancelled", err)
	_, answer, err := client.JobsAPI.ReadJob(ctx, "00000000-0000-0000-0000-000000000000").Execute()
	failure, ok := err.(*calibrl.GenericOpenAPIError)
	check(ok && answer.StatusCode == 404, "an unknown job is an error", nil)
	check(strings.Contains(string(failure.Body()), "There is no job"), "the error has its document", nil)
	fmt.Println("6 calls, as expected")
}
