// Command localkube is Kubernetes in one file, for the tests and the demo: etcd, the control plane, the node
// components and kubectl, linked from their own Go modules. Which of them runs is decided by the name the
// binary is called by (a link named kube-apiserver), else by the first argument.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// program takes over the process. It reads os.Args as if it had been started under its own name.
type program func() int

// command adapts a component that is a cobra command. Building the command has side effects (flag
// registration), so only the chosen one is built.
func command(build func() *cobra.Command) program {
	return func() int { return cli.Run(build()) }
}

var programs = map[string]program{
	"etcd": func() int {
		etcdmain.Main(os.Args)
		return 0
	},
	"kube-apiserver":          command(apiserver.NewAPIServerCommand),
	"kube-controller-manager": command(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 command(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kube-proxy":              command(proxy.NewProxyCommand),
	"service-account-key":     serviceAccountKey,
	"kubectl": func() int {
		// cli.RunNoErrOutput leaves the wording of an error to kubectl, which the golden tests read.
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			return 1
		}
		return 0
	},
}

// serviceAccountKey prints a new private key for --service-account-signing-key-file, so that a cluster needs no
// other program to come up.
func serviceAccountKey() int {
	key, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed to make a key:", err)
		return 1
	}
	os.Stdout.Write(key)
	return 0
}

func main() {
	os.Exit(run())
}

func run() int {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if _, known := programs[name]; !known && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	chosen, known := programs[name]
	if !known {
		names := slices.Sorted(maps.Keys(programs))
		fmt.Fprintf(os.Stderr, "usage: localkube %s [flags]\n", strings.Join(names, "|"))
		return 2
	}
	os.Args = append([]string{name}, args...)
	return chosen()
}
