// Command cloud-peer is the cloud-controller-manager that Kubernetes' own libraries make, with the provider that
// Kubernetes tests them with (k8s.io/cloud-provider/fake). Figures of quarterdeck's cloud controllers stand beside its.
package main

import (
	"os"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/wait"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	_ "k8s.io/component-base/metrics/prometheus/workqueue" // its queues' metrics
	"k8s.io/klog/v2"
)

func main() {
	settings, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		klog.ErrorS(err, "no options")
		os.Exit(1)
	}
	var behaviour, calls string
	own := cliflag.NamedFlagSets{}
	own.FlagSet("cloud-peer").AddFlagSet(flags(&behaviour, &calls))
	start := func(*config.CompletedConfig) cloudprovider.Interface {
		cloud, err := newProvider(behaviour, calls)
		if err != nil {
			klog.ErrorS(err, "no provider")
			os.Exit(1)
		}
		return cloud
	}
	command := app.NewCloudControllerManagerCommand(
		settings, start, app.DefaultInitFuncConstructors, names.CCMControllerAliases(), own, wait.NeverStop,
	)
	os.Exit(cli.Run(command))
}

func flags(behaviour, calls *string) *pflag.FlagSet {
	set := pflag.NewFlagSet("cloud-peer", pflag.ExitOnError)
	set.StringVar(behaviour, "peer-behaviour", "", "File that says how the provider behaves, as JSON; read before each call")
	set.StringVar(calls, "peer-calls", "", "File that gets a line METHOD SUBJECT for each call")
	return set
}
